/* Where a window of a product or a pool is. */

typedef struct {
    int height, width, depth; /* of the input; depth in floats, or in words of 32 signs */
    int kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
    int out_width, filters, channels; /* channels: that one tap sees */
} Window;

typedef struct {
    int from, to;
} Span;

/* The taps of a window that starts at `start` which are inside of an axis. */
INLINE Span inside(int start, int dilation, int taps, int size)
{
    Span span;
    const int beyond = size > start ? (size - start + dilation - 1) / dilation : 0;
    span.to = beyond < taps ? beyond : taps;
    span.from = start < 0 ? (-start + dilation - 1) / dilation : 0;
    if (span.from > span.to)
        span.from = span.to;
    return span;
}

INLINE Span rows_of(const Window *g, int y)
{
    return inside(y * g->stride_h - g->pad_top, g->dilation_h, g->kernel_h, g->height);
}

INLINE Span columns_of(const Window *g, int x)
{
    return inside(x * g->stride_w - g->pad_left, g->dilation_w, g->kernel_w, g->width);
}

/* Index of what a tap sees of the window at an output pixel, in pixels of the input. */
INLINE size_t seen(const Window *g, int y, int x, int ky, int kx)
{
    const int row = y * g->stride_h - g->pad_top + ky * g->dilation_h;
    const int column = x * g->stride_w - g->pad_left + kx * g->dilation_w;
    return (size_t)row * (size_t)g->width + (size_t)column;
}
