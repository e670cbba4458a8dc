/* One line of a pool. */

#include "window.h"

/* ==== max_pool_floats */
static TARGET void max_pool_floats(const Window *g, const f32 *restrict x, int y,
                                   f32 *restrict out)
{
    const Span rows = rows_of(g, y);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c)
            out[c] = -INFINITY;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const f32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                for (int c = 0; c < g->depth; ++c)
                    out[c] = out[c] > pixel[c] || out[c] != out[c] ? out[c] : pixel[c];
            }
    }
}

/* ==== max_pool_sums */
static TARGET void max_pool_sums(const Window *g, const i32 *restrict x, int y, i32 *restrict out)
{
    const Span rows = rows_of(g, y);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c)
            out[c] = INT32_MIN;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const i32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                for (int c = 0; c < g->depth; ++c)
                    out[c] = out[c] > pixel[c] ? out[c] : pixel[c];
            }
    }
}

/* ==== max_pool_signs */
static TARGET void max_pool_signs(const Window *g, const u32 *restrict x, int y, u32 *restrict out)
{
    const Span rows = rows_of(g, y);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c)
            out[c] = 0;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const u32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                for (int c = 0; c < g->depth; ++c)
                    out[c] |= pixel[c];
            }
    }
}

/* ==== avg_pool */
static TARGET void avg_pool(const Window *g, const f32 *restrict x, int y, f32 *restrict out)
{
    const Span rows = rows_of(g, y);
    const float size = (float)(g->kernel_h * g->kernel_w);
    for (int px = 0; px < g->out_width; ++px, out += g->depth) {
        const Span columns = columns_of(g, px);
        for (int c = 0; c < g->depth; ++c)
            out[c] = 0.0f;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) {
                const f32 *pixel = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
                for (int c = 0; c < g->depth; ++c)
                    out[c] += pixel[c];
            }
        for (int c = 0; c < g->depth; ++c)
            out[c] /= size;
    }
}
