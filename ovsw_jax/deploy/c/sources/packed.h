/* Signs by signs where there are few channels: one word holds several taps.
 *
 * The words of all windows of a line are gathered first, word by word, so that what is gathered is
 * next to each other. A mask says which bits are inside of the input.
 */

#include "store.h"

INLINE TARGET void gather(const Window *g, const u32 *x, int y, int words, u32 *seen_words,
                          u32 *masks)
{
    const int each = 32 / g->channels, size = g->out_width;
    const u32 inside_tap = g->channels == 32 ? ~(u32)0 : ((u32)1 << g->channels) - 1;
    const Span rows = rows_of(g, y);
    memset(seen_words, 0, (size_t)(words * size) * sizeof *seen_words);
    memset(masks, 0, (size_t)(words * size) * sizeof *masks);
    for (int tap = rows.from * g->kernel_w; tap < rows.to * g->kernel_w; ++tap) {
        const int ky = tap / g->kernel_w, kx = tap % g->kernel_w;
        const int shift = tap % each * g->channels, to_left = g->pad_left - kx * g->dilation_w;
        const int first = to_left > 0 ? (to_left + g->stride_w - 1) / g->stride_w : 0;
        const int room = g->width - 1 + to_left; /* of the last column in strides */
        const int end = room < 0 ? 0 : room / g->stride_w + 1;
        const int last = end < size ? end : size;
        u32 *to = seen_words + tap / each * size, *mask = masks + tap / each * size;
        if (first < last) {
            const u32 *from = x + seen(g, y, first, ky, kx);
            for (int px = first; px < last; ++px) {
                to[px] |= from[(px - first) * g->stride_w] << shift;
                mask[px] |= inside_tap << shift;
            }
        }
    }
}

INLINE TARGET void packed_tile(const int P, const int mode, const Window *g, const u32 *x,
                               const u32 *masks, const u32 *w, int words, int taps_down, int px,
                               int block, Out out)
{
    vi sums[8];
    for (int p = 0; p < P; ++p)
        sums[p] = vi_zero();
    for (int from = 0; from < words; from += MOST_STEPS) {
        const int to = words - from < MOST_STEPS ? words : from + MOST_STEPS;
        vc counts[8];
        for (int p = 0; p < P; ++p)
            counts[p] = vc_start(sums[p]);
        for (int i = from; i < to; ++i) {
            const vw weights = vw_load(w + (size_t)(block * words + i) * 16);
            for (int p = 0; p < P; ++p)
                counts[p] = vc_masked_step(counts[p], vw_repeat(x[i * g->out_width + px + p]),
                                           vw_repeat(masks[i * g->out_width + px + p]), weights);
        }
        for (int p = 0; p < P; ++p)
            sums[p] = vc_finish(sums[p], counts[p]);
    }
    for (int p = 0; p < P; ++p) {
        const Span columns = columns_of(g, px + p);
        store_sums(mode, g, sums[p], taps_down * (columns.to - columns.from), px + p, block, out);
    }
}

/* `scratch` has room for the words and the masks of a line. */
INLINE TARGET void packed_line(const int mode, const Window *g, const u32 *x, const u32 *w, int y,
                               u32 *scratch, Out out)
{
    const int each = 32 / g->channels, words = (g->kernel_h * g->kernel_w + each - 1) / each;
    const Span rows = rows_of(g, y);
    u32 *masks = scratch + words * g->out_width;
    gather(g, x, y, words, scratch, masks);
    for (int block = 0; block < (g->filters + 15) / 16; ++block) {
        int px = 0;
        for (; px + PIXELS_OF_1 <= g->out_width; px += PIXELS_OF_1)
            packed_tile(PIXELS_OF_1, mode, g, scratch, masks, w, words, rows.to - rows.from, px,
                        block, out);
        for (; px < g->out_width; ++px)
            packed_tile(1, mode, g, scratch, masks, w, words, rows.to - rows.from, px, block, out);
    }
}

/* ==== packed_as_sums */
static TARGET void packed_as_sums(const Window *g, const u32 *x, const u32 *w, int y, u32 *scratch,
                                    Out out)
{
    packed_line(AS_SUMS, g, x, w, y, scratch, out);
}

/* ==== packed_as_affine */
static TARGET void packed_as_affine(const Window *g, const u32 *x, const u32 *w, int y, u32 *scratch,
                                    Out out)
{
    packed_line(AS_AFFINE, g, x, w, y, scratch, out);
}

/* ==== packed_as_signs */
static TARGET void packed_as_signs(const Window *g, const u32 *x, const u32 *w, int y, u32 *scratch,
                                    Out out)
{
    packed_line(AS_SIGNS, g, x, w, y, scratch, out);
}
