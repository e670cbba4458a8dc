/* Signs: those of a pixel are the bits of whole words, the first one lowest, 1 for +1. */

/* ==== sign */
static TARGET void sign(const f32 *x, u32 *y, size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p)
        for (int from = 0; from < channels; from += 32, ++y) {
            const int size = channels - from < 32 ? channels - from : 32;
            u32 bits = 0;
            int c = 0;
            for (; c + 16 <= size; c += 16, x += 16)
                bits |= vf_not_negative(vf_load(x)) << c;
            for (; c < size; ++c, ++x)
                bits |= (u32)(*x >= 0.0f) << c;
            *y = bits;
        }
}

/* ==== threshold */
static TARGET void threshold(const i32 *x, const i32 *limits, const u32 *flips, u32 *y,
                             size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p, x += channels)
        for (int from = 0; from < channels; from += 32, ++y) {
            const int size = channels - from < 32 ? channels - from : 32;
            u32 bits = 0;
            for (int c = 0; c < size; ++c)
                bits |= (u32)(x[from + c] >= limits[from + c]) << c;
            *y = flips ? bits ^ flips[from / 32] : bits;
        }
}

/* ==== flip_signs */
static TARGET void flip_signs(const u32 *x, const u32 *flips, u32 *y, size_t pixels, int words)
{
    for (size_t p = 0; p < pixels; ++p, x += words, y += words)
        for (int i = 0; i < words; ++i)
            y[i] = x[i] ^ flips[i];
}

/* ==== signs_to_floats */
static TARGET void signs_to_floats(const u32 *x, f32 *y, size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p, x += (channels + 31) / 32)
        for (int c = 0; c < channels; ++c)
            *y++ = x[c / 32] >> c % 32 & 1u ? 1.0f : -1.0f;
}

/* ==== sums_to_floats */
static TARGET void sums_to_floats(const i32 *restrict x, f32 *restrict y, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = (f32)x[i];
}

/* ==== floats_to_sums */
static TARGET void floats_to_sums(const f32 *restrict x, i32 *restrict y, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = (i32)x[i];
}
