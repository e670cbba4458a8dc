/* Floats by floats. */

#include "float_sums.h"

#define LINE float_line
#define TILE float_tile
#define COLUMNS float_columns
#define ELEMENT f32
#define WEIGHT f32
#define WEIGHTS 16
#define SUM vf
#define COUNT vf
#define X_VECTOR vf
#define W_VECTOR vf
#define ZERO vf_zero
#define START same_floats
#define STEP vf_step
#define FINISH last_floats
#define REPEAT vf_repeat
#define LOAD vf_load
#define MOST (1 << 30)
#define STORE store_of_floats
#define PIXELS_4 FLOAT_PIXELS_OF_4
#define PIXELS_2 FLOAT_PIXELS_OF_2
#define PIXELS_1 FLOAT_PIXELS_OF_1
#include "lines.h"
#include "end_of_lines.h"

/* ==== float_as_sums */
static TARGET void float_as_sums(const Window *g, const f32 *x, const f32 *w, int y,
                                    Out out)
{
    float_line(AS_SUMS, g, x, w, y, out);
}

/* ==== float_as_affine */
static TARGET void float_as_affine(const Window *g, const f32 *x, const f32 *w, int y,
                                    Out out)
{
    float_line(AS_AFFINE, g, x, w, y, out);
}
