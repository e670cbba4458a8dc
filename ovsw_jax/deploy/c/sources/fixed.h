/* Real numbers without floats: 16 bits that count a power of two, which the writer knows.
 *
 * What scales them multiplies by an integer and shifts the product: half of the last bit that stays
 * is in the offset, so results are rounded to the nearest, and they end at the limits of 16 bits.
 */

#include "window.h"

INLINE i16 limited(int64_t x)
{
    return (i16)(x > INT16_MAX ? INT16_MAX : x < -INT16_MAX ? -INT16_MAX : x);
}

/* ==== sums_to_fixed */
static TARGET void sums_to_fixed(const i32 *x, const i32 *scale, const int64_t *offset, int shift,
                                 i16 *y, size_t pixels, size_t channels)
{
    for (size_t p = 0; p < pixels; ++p, x += channels, y += channels)
        for (size_t c = 0; c < channels; ++c)
            y[c] = limited(((int64_t)x[c] * scale[c] + offset[c]) >> shift);
}

/* ==== fixed_affine */
static TARGET void fixed_affine(const i16 *x, const i32 *scale, const int64_t *offset, int shift,
                                i16 *y, size_t pixels, size_t channels)
{
    for (size_t p = 0; p < pixels; ++p, x += channels, y += channels)
        for (size_t c = 0; c < channels; ++c)
            y[c] = limited(((int64_t)x[c] * scale[c] + offset[c]) >> shift);
}

/* ==== signs_to_fixed */
static TARGET void signs_to_fixed(const u32 *x, int one, i16 *y, size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p, x += (channels + 31) / 32)
        for (int c = 0; c < channels; ++c)
            *y++ = (i16)(x[c / 32] >> c % 32 & 1u ? one : -one);
}

/* ==== fixed_add */
static TARGET void fixed_add(const i16 *a, i32 a_scale, const i16 *b, i32 b_scale, int shift,
                             i16 *y, size_t count)
{
    const int64_t half = (int64_t)1 << (shift - 1);
    for (size_t i = 0; i < count; ++i) {
        const int64_t sum = (int64_t)a[i] * a_scale + (int64_t)b[i] * b_scale;
        y[i] = limited((sum + half) >> shift);
    }
}

/* ==== fixed_clip */
static TARGET void fixed_clip(const i16 *x, int low, int high, i16 *y, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = (i16)(x[i] < low ? low : x[i] > high ? high : x[i]);
}

/* ==== fixed_prelu */
static TARGET void fixed_prelu(const i16 *x, const i32 *slope, int shift, i16 *y, size_t pixels,
                               size_t channels)
{
    const int64_t half = (int64_t)1 << (shift - 1);
    for (size_t p = 0; p < pixels; ++p, x += channels, y += channels)
        for (size_t c = 0; c < channels; ++c)
            y[c] = x[c] > 0 ? x[c]
                            : limited(((int64_t)x[c] * slope[c] + half) >> shift);
}

/* ==== sign_of_fixed */
static TARGET void sign_of_fixed(const i16 *x, u32 *y, size_t pixels, int channels)
{
    for (size_t p = 0; p < pixels; ++p)
        for (int from = 0; from < channels; from += 32, ++y) {
            const int size = channels - from < 32 ? channels - from : 32;
            u32 bits = 0;
            for (int c = 0; c < size; ++c, ++x)
                bits |= (u32)(*x >= 0) << c;
            *y = bits;
        }
}

/* ==== fixed_mean */
static TARGET void fixed_mean(const i16 *x, i32 scale, int shift, i16 *y, size_t count,
                              size_t size)
{
    const int64_t half = (int64_t)1 << (shift - 1);
    for (size_t c = 0; c < size; ++c) {
        int32_t sum = 0;
        for (size_t i = 0; i < count; ++i)
            sum += x[i * size + c];
        y[c] = limited(((int64_t)sum * scale + half) >> shift);
    }
}

/* ==== fixed_max_pool */
static TARGET void fixed_max_pool(const Window *g, const i16 *x, int y, i16 *out)
{
    const Span rows = rows_of(g, y);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c)
            out[c] = INT16_MIN;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const i16 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                for (int c = 0; c < g->depth; ++c)
                    out[c] = out[c] > pixel[c] ? out[c] : pixel[c];
            }
    }
}

/* ==== fixed_avg_pool */
static TARGET void fixed_avg_pool(const Window *g, const i16 *x, i32 scale, int shift, int y,
                                  i16 *out)
{
    const Span rows = rows_of(g, y);
    const int64_t half = (int64_t)1 << (shift - 1);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c) {
            int32_t sum = 0;
            for (int ky = rows.from; ky < rows.to; ++ky)
                for (int kx = columns.from; kx < columns.to; ++kx)
                    sum += x[seen(g, y, px, ky, kx) * (size_t)g->depth + (size_t)c];
            out[c] = limited(((int64_t)sum * scale + half) >> shift);
        }
    }
}

/* ==== fixed_product */
/* One filter after the other, each of which sees the channels of its group. */
static TARGET void fixed_product(const Window *g, int groups, const i16 *x, const i16 *w, int y,
                                 i32 *out)
{
    const Span rows = rows_of(g, y);
    const int each = g->filters / groups;
    for (int px = 0; px < g->out_width; ++px)
        for (int f = 0; f < g->filters; ++f) {
            const Span columns = columns_of(g, px);
            int32_t sum = 0;
            for (int ky = rows.from; ky < rows.to; ++ky)
                for (int kx = columns.from; kx < columns.to; ++kx) {
                    const i16 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth +
                                       f / each * g->channels;
                    const i16 *weights = w + (size_t)((f * g->kernel_h + ky) * g->kernel_w + kx) *
                                                (size_t)g->channels;
                    for (int c = 0; c < g->channels; ++c)
                        sum += (int32_t)pixel[c] * weights[c];
                }
            *out++ = sum;
        }
}
