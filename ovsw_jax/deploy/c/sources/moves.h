/* Moves of elements. */

#include "place.h"

/* ==== move_words */
/* Floats, sums, or words of signs. */
static TARGET void move_words(const Move *m, const void *from, void *to)
{
    const u32 *x = (const u32 *)from;
    u32 *y = (u32 *)to;
    int place[AXES] = {0};
    ptrdiff_t at = m->x_start, into = m->y_start;
    do
        y[into] = x[at];
    while (next_place(m, place, &at, &into));
}

/* ==== move_bytes */
static TARGET void move_bytes(const Move *m, const u8 *x, u8 *y)
{
    int place[AXES] = {0};
    ptrdiff_t at = m->x_start, into = m->y_start;
    do
        y[into] = x[at];
    while (next_place(m, place, &at, &into));
}

/* ==== move_signs */
/* Single signs, where channels move too: y is all -1 before. */
static TARGET void move_signs(const Move *m, const u32 *x, int x_channels, u32 *y, int y_channels)
{
    const int x_words = (x_channels + 31) / 32, y_words = (y_channels + 31) / 32;
    int place[AXES] = {0};
    ptrdiff_t at = m->x_start, into = m->y_start;
    do {
        const ptrdiff_t c = at % x_channels, d = into % y_channels;
        const u32 bit = x[at / x_channels * x_words + c / 32] >> c % 32 & 1u;
        y[into / y_channels * y_words + d / 32] |= bit << d % 32;
    } while (next_place(m, place, &at, &into));
}

/* ==== fill_floats */
static TARGET void fill_floats(f32 *y, float value, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = value;
}

/* ==== fill_signs */
static TARGET void fill_signs(u32 *y, int positive, size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p)
        for (int c = 0; c < channels; c += 32) {
            const u32 all = channels - c < 32 ? ((u32)1 << (channels - c)) - 1 : ~(u32)0;
            *y++ = positive ? all : 0;
        }
}

/* ==== move_halves */
static TARGET void move_halves(const Move *m, const i16 *x, i16 *y)
{
    int place[AXES] = {0};
    ptrdiff_t at = m->x_start, into = m->y_start;
    do
        y[into] = x[at];
    while (next_place(m, place, &at, &into));
}

/* ==== fill_halves */
static TARGET void fill_halves(i16 *y, int value, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = (i16)value;
}
