/* Functions of each number of some pixels. What is the same for all pixels has a step of 0. */

#define OF_ONE(NAME, RESULT)                                                                       \
    static TARGET void NAME(const f32 *restrict x, f32 *restrict y, size_t count)                  \
    {                                                                                              \
        for (size_t i = 0; i < count; ++i) {                                                       \
            const float a = x[i];                                                                  \
            y[i] = (RESULT);                                                                       \
        }                                                                                          \
    }

#define OF_TWO(NAME, TYPE, RESULT)                                                                 \
    static TARGET void NAME(const f32 *restrict left, size_t left_step, const f32 *restrict right, \
                            size_t right_step, TYPE *restrict y, size_t pixels, size_t channels)   \
    {                                                                                              \
        for (size_t p = 0; p < pixels; ++p, y += channels)                                         \
            for (size_t c = 0; c < channels; ++c) {                                                \
                const float a = left[p * left_step + c], b = right[p * right_step + c];            \
                y[c] = (RESULT);                                                                   \
            }                                                                                      \
    }

/* ==== absolute */
OF_ONE(absolute, fabsf(a))
/* ==== exponential */
OF_ONE(exponential, expf(a))
/* ==== logarithm */
OF_ONE(logarithm, logf(a))
/* ==== tangent */
OF_ONE(tangent, tanhf(a))
/* ==== sigmoid */
OF_ONE(sigmoid, 1.0f / (1.0f + expf(-a)))
/* ==== error_function */
OF_ONE(error_function, erff(a))
/* ==== root */
OF_ONE(root, sqrtf(a))
/* ==== add */
OF_TWO(add, f32, a + b)
/* ==== subtract */
OF_TWO(subtract, f32, a - b)
/* ==== multiply */
OF_TWO(multiply, f32, a *b)
/* ==== divide */
OF_TWO(divide, f32, a / b)
/* ==== greatest */
OF_TWO(greatest, f32, a > b || a != a ? a : b)
/* ==== least */
OF_TWO(least, f32, a < b || a != a ? a : b)
/* ==== power */
OF_TWO(power, f32, powf(a, b))
/* ==== equal */
OF_TWO(equal, u8, a == b)
/* ==== greater */
OF_TWO(greater, u8, a > b)
/* ==== greater_equal */
OF_TWO(greater_equal, u8, a >= b)
/* ==== prelu */
OF_TWO(prelu, f32, a > 0.0f ? a : b * a)

/* ==== clip */
static TARGET void clip(const f32 *restrict x, float low, float high, f32 *restrict y,
                        size_t count)
{
    for (size_t i = 0; i < count; ++i) {
        const float a = x[i] < low ? low : x[i];
        y[i] = a > high ? high : a;
    }
}

/* ==== affine */
static TARGET void affine(const f32 *restrict x, const f32 *restrict scale,
                          const f32 *restrict offset, f32 *restrict y, size_t pixels,
                          size_t channels)
{
    for (size_t p = 0; p < pixels; ++p, x += channels, y += channels)
        for (size_t c = 0; c < channels; ++c)
            y[c] = x[c] * scale[c] + offset[c];
}

/* ==== opposite */
static TARGET void opposite(const u8 *x, u8 *y, size_t count)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = !x[i];
}

/* ==== select_floats */
static TARGET void select_floats(const u8 *choice, const f32 *left, size_t left_step,
                                 const f32 *right, size_t right_step, f32 *y, size_t pixels,
                                 size_t channels)
{
    for (size_t p = 0; p < pixels; ++p, choice += channels, y += channels)
        for (size_t c = 0; c < channels; ++c)
            y[c] = choice[c] ? left[p * left_step + c] : right[p * right_step + c];
}
