/* Floats by signs, which are one bit of 16 for each filter of a block. */

#include "float_sums.h"

INLINE TARGET vf sixteen_signs(const uint16_t *w)
{
    return vf_signs(*w);
}

#define LINE sign_weights_line
#define TILE sign_weights_tile
#define COLUMNS sign_weights_columns
#define ELEMENT f32
#define WEIGHT uint16_t
#define WEIGHTS 1
#define SUM vf
#define COUNT vf
#define X_VECTOR vf
#define W_VECTOR vf
#define ZERO vf_zero
#define START same_floats
#define STEP vf_step
#define FINISH last_floats
#define REPEAT vf_repeat
#define LOAD sixteen_signs
#define MOST (1 << 30)
#define STORE store_of_floats
#define PIXELS_4 FLOAT_PIXELS_OF_4
#define PIXELS_2 FLOAT_PIXELS_OF_2
#define PIXELS_1 FLOAT_PIXELS_OF_1
#include "lines.h"
#include "end_of_lines.h"

/* ==== sign_weights_as_sums */
static TARGET void sign_weights_as_sums(const Window *g, const f32 *x, const uint16_t *w, int y,
                                    Out out)
{
    sign_weights_line(AS_SUMS, g, x, w, y, out);
}

/* ==== sign_weights_as_affine */
static TARGET void sign_weights_as_affine(const Window *g, const f32 *x, const uint16_t *w, int y,
                                    Out out)
{
    sign_weights_line(AS_AFFINE, g, x, w, y, out);
}
