/* Elements to other places: element (i, j, ...) of y is at i * y_steps[0] + j * y_steps[1] + ...,
 * and comes from where x_steps say. */

enum { AXES = 6 };

typedef struct {
    int sizes[AXES];
    ptrdiff_t x_start, x_steps[AXES], y_start, y_steps[AXES];
} Move;

/* The next place in row-major order; 0 behind the last one. */
INLINE int next_place(const Move *m, int *place, ptrdiff_t *x, ptrdiff_t *y)
{
    for (int axis = AXES - 1; axis >= 0; --axis) {
        *x += m->x_steps[axis];
        *y += m->y_steps[axis];
        if (++place[axis] < m->sizes[axis])
            return 1;
        *x -= place[axis] * m->x_steps[axis];
        *y -= place[axis] * m->y_steps[axis];
        place[axis] = 0;
    }
    return 0;
}
