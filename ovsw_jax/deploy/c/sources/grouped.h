/* Products whose filters see the channels of their group alone. One filter after the other. */

#include "window.h"

/* ==== grouped_binary */

/* Up to 32 signs of a pixel, from any one on. */
INLINE TARGET u32 some_signs(const u32 *pixel, int from, int count)
{
    const int word = from / 32, shift = from % 32;
    u32 bits = pixel[word] >> shift;
    if (shift + count > 32)
        bits |= pixel[word + 1] << (32 - shift);
    return count == 32 ? bits : bits & (((u32)1 << count) - 1);
}

INLINE TARGET int ones_of(u32 x)
{
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return (int)(x * 0x01010101u >> 24);
}

static TARGET void grouped_binary(const Window *g, int groups, const u32 *x, const u32 *w, int y,
                                  i32 *out)
{
    const Span rows = rows_of(g, y);
    const int words = (g->channels + 31) / 32, each = g->filters / groups;
    for (int px = 0; px < g->out_width; ++px) {
        const Span columns = columns_of(g, px);
        const int taps = (rows.to - rows.from) * (columns.to - columns.from);
        for (int f = 0; f < g->filters; ++f) {
            int negative = 0;
            for (int ky = rows.from; ky < rows.to; ++ky)
                for (int kx = columns.from; kx < columns.to; ++kx) {
                    const u32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                    const u32 *weights =
                        w + (size_t)((f * g->kernel_h + ky) * g->kernel_w + kx) * (size_t)words;
                    for (int i = 0; i < words; ++i) {
                        const int left = g->channels - 32 * i, count = left < 32 ? left : 32;
                        const int from = f / each * g->channels + 32 * i;
                        negative += ones_of(some_signs(pixel, from, count) ^ weights[i]);
                    }
                }
            out[px * g->filters + f] = taps * g->channels - 2 * negative;
        }
    }
}

/* ==== grouped_float */

/* The weights of a tap are next to each other: channel by channel, filters last. */
static TARGET void grouped_float(const Window *g, int groups, const f32 *restrict x,
                                 const f32 *restrict w, int y, f32 *restrict out)
{
    const Span rows = rows_of(g, y);
    const int each = g->filters / groups;
    for (int px = 0; px < g->out_width; ++px) {
        const Span columns = columns_of(g, px);
        f32 *sums = out + (size_t)px * (size_t)g->filters;
        for (int f = 0; f < g->filters; ++f)
            sums[f] = 0.0f;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const f32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                const f32 *weights = w + (size_t)((ky * g->kernel_w + kx) * g->channels) *
                                             (size_t)g->filters;
                for (int c = 0; c < g->channels; ++c, weights += g->filters)
                    if (each == 1 && g->channels == 1)
                        for (int f = 0; f < g->filters; ++f)
                            sums[f] += pixel[f] * weights[f];
                    else
                        for (int f = 0; f < g->filters; ++f)
                            sums[f] += pixel[f / each * g->channels + c] * weights[f];
            }
    }
}
