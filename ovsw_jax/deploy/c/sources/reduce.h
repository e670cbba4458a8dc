/* Over the first axis of two, of `count` and `size` elements. */

/* ==== mean */
static TARGET void mean(const f32 *restrict x, f32 *restrict y, size_t count, size_t size)
{
    for (size_t c = 0; c < size; ++c)
        y[c] = 0.0f;
    for (size_t i = 0; i < count; ++i, x += size)
        for (size_t c = 0; c < size; ++c)
            y[c] += x[c];
    for (size_t c = 0; c < size; ++c)
        y[c] /= (float)count;
}

/* ==== reduce_max */
static TARGET void reduce_max(const f32 *restrict x, f32 *restrict y, size_t count, size_t size)
{
    memcpy(y, x, size * sizeof *y);
    for (size_t i = 1; i < count; ++i)
        for (size_t c = 0; c < size; ++c) {
            const float a = x[i * size + c];
            y[c] = y[c] > a || y[c] != y[c] ? y[c] : a;
        }
}

/* ==== reduce_min */
static TARGET void reduce_min(const f32 *restrict x, f32 *restrict y, size_t count, size_t size)
{
    memcpy(y, x, size * sizeof *y);
    for (size_t i = 1; i < count; ++i)
        for (size_t c = 0; c < size; ++c) {
            const float a = x[i * size + c];
            y[c] = y[c] < a || y[c] != y[c] ? y[c] : a;
        }
}
