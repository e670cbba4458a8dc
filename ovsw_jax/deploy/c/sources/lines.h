/* One line of a product: P pixels meet V blocks of 16 filters, all sums in registers.
 *
 * Each kind of product includes this text, with
 *   LINE, TILE, COLUMNS                names of the three functions;
 *   ELEMENT, WEIGHT, WEIGHTS           types of x and of w, and how many WEIGHT one step takes;
 *   SUM, COUNT, X_VECTOR, W_VECTOR     types of vectors: sums, what steps add to, and operands;
 *   ZERO, START, STEP, FINISH          sums of 0, COUNT of sums, one more product, sums of COUNT;
 *   REPEAT, LOAD, MOST                 vectors of x and w, and how many steps COUNT can hold;
 *   FOUR_STEPS                         four steps that count as one, if there are such;
 *   STORE(mode, g, sum, taps, pixel, block, out)
 *   PIXELS_4, PIXELS_2, PIXELS_1       pixels at once of 4, 2 and 1 blocks, or 0.
 * Each sum has a lane of its own, in which its products are added in the same order on each path.
 */

INLINE TARGET void TILE(const int P, const int V, const Window *g, const ELEMENT *x,
                        const WEIGHT *w, int y, int px, Span rows, Span columns, SUM *sums)
{
    const int run = g->dilation_w == 1 ? columns.to - columns.from : 1;
    const size_t pixel = (size_t)g->stride_w * (size_t)g->depth;
    const size_t block = (size_t)g->kernel_h * (size_t)(g->kernel_w * g->depth) * WEIGHTS;
    int room = MOST;
    COUNT counts[8];
    for (int k = 0; k < P * V; ++k) {
        sums[k] = ZERO();
        counts[k] = START(sums[k]);
    }
    for (int ky = rows.from; ky < rows.to; ++ky)
        for (int kx = columns.from; kx < columns.to; kx += run) {
            const ELEMENT *xs = x + seen(g, y, px, ky, kx) * (size_t)g->depth;
            const WEIGHT *ws = w + (size_t)((ky * g->kernel_w + kx) * g->depth) * WEIGHTS;
            int left = run * g->depth;
            while (left > 0) {
                int steps;
                if (room == 0) {
                    for (int k = 0; k < P * V; ++k) {
                        sums[k] = FINISH(sums[k], counts[k]);
                        counts[k] = START(sums[k]);
                    }
                    room = MOST;
                }
#if defined(FOUR_STEPS)
                steps = left / 4 < room ? left / 4 : room;
                left -= 4 * steps;
                room -= steps;
                for (; steps > 0; --steps, xs += 4, ws += 4 * WEIGHTS)
                    for (int k = 0; k < P * V; ++k)
                        counts[k] = FOUR_STEPS(counts[k], xs + (size_t)(k / V) * pixel,
                                               ws + (size_t)(k % V) * block);
#endif
                steps = left < room ? left : room;
                left -= steps;
                room -= steps;
                for (; steps > 0; --steps, ++xs, ws += WEIGHTS) {
                    W_VECTOR weights[4];
                    for (int v = 0; v < V; ++v)
                        weights[v] = LOAD(ws + (size_t)v * block);
                    for (int p = 0; p < P; ++p) {
                        const X_VECTOR repeated = REPEAT(xs[(size_t)p * pixel]);
                        for (int v = 0; v < V; ++v)
                            counts[p * V + v] = STEP(counts[p * V + v], repeated, weights[v]);
                    }
                }
            }
        }
    for (int k = 0; k < P * V; ++k)
        sums[k] = FINISH(sums[k], counts[k]);
}

INLINE TARGET void COLUMNS(const int P, const int V, const int mode, const Window *g,
                           const ELEMENT *x, const WEIGHT *w, int y, int block, Out out)
{
    const Span rows = rows_of(g, y), whole = {0, g->kernel_w};
    const int extent = (g->kernel_w - 1) * g->dilation_w + 1;
    const int first = (g->pad_left + g->stride_w - 1) / g->stride_w;
    const int room = g->width + g->pad_left - extent;
    const int end = room < 0 ? 0 : room / g->stride_w + 1;
    const int last = (end < g->out_width ? end : g->out_width) - 1; /* of those that are whole */
    SUM sums[8];
    w += (size_t)block * (size_t)g->kernel_h * (size_t)(g->kernel_w * g->depth) * WEIGHTS;
    for (int px = 0; px < g->out_width;) {
        if (px >= first && px <= last && px + P - 1 > last && last - P + 1 >= first)
            px = last - P + 1; /* some once more, which is faster than the rest one by one */
        if (px >= first && px + P - 1 <= last) {
            TILE(P, V, g, x, w, y, px, rows, whole, sums);
            for (int k = 0; k < P * V; ++k)
                STORE(mode, g, sums[k], (rows.to - rows.from) * g->kernel_w, px + k / V,
                      block + k % V, out);
            px += P;
        } else {
            const Span columns = columns_of(g, px);
            TILE(1, V, g, x, w, y, px, rows, columns, sums);
            for (int v = 0; v < V; ++v)
                STORE(mode, g, sums[v],
                      (rows.to - rows.from) * (columns.to - columns.from), px, block + v, out);
            px += 1;
        }
    }
}

INLINE TARGET void LINE(const int mode, const Window *g, const ELEMENT *x, const WEIGHT *w, int y,
                        Out out)
{
    const int blocks = (g->filters + 15) / 16;
    int block = 0;
#if PIXELS_4
    for (; block + 4 <= blocks; block += 4)
        COLUMNS(PIXELS_4, 4, mode, g, x, w, y, block, out);
#endif
#if PIXELS_2
    for (; block + 2 <= blocks; block += 2)
        COLUMNS(PIXELS_2, 2, mode, g, x, w, y, block, out);
#endif
    for (; block < blocks; ++block)
        COLUMNS(PIXELS_1, 1, mode, g, x, w, y, block, out);
}
