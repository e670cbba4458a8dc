/* 16 lanes in plain C. */

#define TARGET
#define PIXELS_OF_4 0
#define PIXELS_OF_2 0
#define PIXELS_OF_1 1
#define FLOAT_PIXELS_OF_4 0
#define FLOAT_PIXELS_OF_2 0
#define FLOAT_PIXELS_OF_1 1
#define MOST_STEPS (1 << 30)

typedef struct {
    int32_t lane[16];
} vi;
typedef struct {
    float lane[16];
} vf;
typedef vi vc; /* counts */
typedef struct {
    uint32_t lane[16];
} vw; /* words */

#define EACH_LANE for (int l = 0; l < 16; ++l)

INLINE int32_t ones(uint32_t x)
{
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return (int32_t)(x * 0x01010101u >> 24);
}

INLINE vi vi_zero(void)
{
    vi y;
    EACH_LANE y.lane[l] = 0;
    return y;
}

INLINE void vi_store(i32 *y, vi a)
{
    EACH_LANE y[l] = a.lane[l];
}

/* Sums of `bits` products of signs, of which a count is negative. */
INLINE vi vi_sums(int bits, vi counts)
{
    EACH_LANE counts.lane[l] = bits - 2 * counts.lane[l];
    return counts;
}

INLINE uint32_t vi_at_least(vi a, const i32 *limits)
{
    uint32_t bits = 0;
    EACH_LANE bits |= (uint32_t)(a.lane[l] >= limits[l]) << l;
    return bits;
}

INLINE vw vw_load(const u32 *w)
{
    vw y;
    EACH_LANE y.lane[l] = w[l];
    return y;
}

INLINE vw vw_repeat(uint32_t x)
{
    vw y;
    EACH_LANE y.lane[l] = x;
    return y;
}

INLINE vc vc_start(vi sums)
{
    return sums;
}

INLINE vi vc_finish(vi sums, vc counts)
{
    (void)sums;
    return counts;
}

INLINE vc vc_step(vc counts, vw x, vw w)
{
    EACH_LANE counts.lane[l] += ones(x.lane[l] ^ w.lane[l]);
    return counts;
}

INLINE vc vc_masked_step(vc counts, vw x, vw mask, vw w)
{
    EACH_LANE counts.lane[l] += ones((x.lane[l] ^ w.lane[l]) & mask.lane[l]);
    return counts;
}

INLINE vf vf_zero(void)
{
    vf y;
    EACH_LANE y.lane[l] = 0;
    return y;
}

INLINE vf vf_load(const f32 *x)
{
    vf y;
    EACH_LANE y.lane[l] = x[l];
    return y;
}

INLINE void vf_store(f32 *y, vf a)
{
    EACH_LANE y[l] = a.lane[l];
}

INLINE vf vf_repeat(float x)
{
    vf y;
    EACH_LANE y.lane[l] = x;
    return y;
}

INLINE vf vf_of_sums(vi a)
{
    vf y;
    EACH_LANE y.lane[l] = (float)a.lane[l];
    return y;
}

/* +1 where a bit is 1, else -1. */
INLINE vf vf_signs(uint32_t bits)
{
    vf y;
    EACH_LANE y.lane[l] = bits >> l & 1u ? 1.0f : -1.0f;
    return y;
}

/* A product, rounded, and a sum, rounded: no path may fuse them. */
INLINE vf vf_step(vf sum, vf x, vf w)
{
    EACH_LANE sum.lane[l] += x.lane[l] * w.lane[l];
    return sum;
}

INLINE uint32_t vf_not_negative(vf a)
{
    uint32_t bits = 0;
    EACH_LANE bits |= (uint32_t)(a.lane[l] >= 0.0f) << l;
    return bits;
}
