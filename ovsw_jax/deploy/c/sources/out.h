/* What becomes of the sums of a product: they leave the registers as one of these. */

enum { AS_SUMS, AS_AFFINE, AS_SIGNS };

typedef struct {
    void *y;                     /* one line */
    const f32 *scale, *offset;   /* AS_AFFINE: of each filter, up to a multiple of 16 */
    const i32 *limits;           /* AS_SIGNS: +1 from here on; likewise */
    const u32 *flips;            /* AS_SIGNS: filters whose sign is the other one, or NULL */
} Out;
