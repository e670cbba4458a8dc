/* Signs by signs: of each 32 products, the ones of one exclusive or are those that are negative. */

#include "store.h"

#define LINE binary_line
#define TILE binary_tile
#define COLUMNS binary_columns
#define ELEMENT u32
#define WEIGHT u32
#define WEIGHTS 16
#define SUM vi
#define X_VECTOR vw
#define W_VECTOR vw
#define ZERO vi_zero
#if defined(COUNTS_FOURS)
#define COUNT vq
#define START vq_start
#define STEP vq_step
#define FOUR_STEPS vq_four_steps
#define FINISH vq_finish
#else
#define COUNT vc
#define START vc_start
#define STEP vc_step
#define FINISH vc_finish
#endif
#define REPEAT vw_repeat
#define LOAD vw_load
#define MOST MOST_STEPS
#define STORE store_sums
#define PIXELS_4 PIXELS_OF_4
#define PIXELS_2 PIXELS_OF_2
#define PIXELS_1 PIXELS_OF_1
#include "lines.h"
#include "end_of_lines.h"

/* ==== binary_as_sums */
static TARGET void binary_as_sums(const Window *g, const u32 *x, const u32 *w, int y,
                                    Out out)
{
    binary_line(AS_SUMS, g, x, w, y, out);
}

/* ==== binary_as_affine */
static TARGET void binary_as_affine(const Window *g, const u32 *x, const u32 *w, int y,
                                    Out out)
{
    binary_line(AS_AFFINE, g, x, w, y, out);
}

/* ==== binary_as_signs */
static TARGET void binary_as_signs(const Window *g, const u32 *x, const u32 *w, int y,
                                    Out out)
{
    binary_line(AS_SIGNS, g, x, w, y, out);
}
