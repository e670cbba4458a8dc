/* 16 lanes in four registers of NEON, which counts the ones of each byte. */

#define TARGET
#define PIXELS_OF_4 0
#define PIXELS_OF_2 0
#define PIXELS_OF_1 2
#define FLOAT_PIXELS_OF_4 0
#define FLOAT_PIXELS_OF_2 2
#define FLOAT_PIXELS_OF_1 4
#define MOST_STEPS 31 /* a byte counts to 255, 8 at most a step */

typedef struct {
    uint32x4_t part[4];
} vi; /* of two's complement */
typedef struct {
    uint8x16_t part[4];
} vc;
typedef vi vw;
typedef struct {
    float32x4_t part[4];
} vf;

#define EACH_PART for (int p = 0; p < 4; ++p)

INLINE vi vi_zero(void)
{
    vi y;
    EACH_PART y.part[p] = vdupq_n_u32(0);
    return y;
}

INLINE void vi_store(i32 *y, vi a)
{
    EACH_PART vst1q_s32((int32_t *)y + 4 * p, vreinterpretq_s32_u32(a.part[p]));
}

INLINE vi vi_sums(int bits, vi counts)
{
    const uint32x4_t all = vdupq_n_u32((uint32_t)bits);
    EACH_PART counts.part[p] = vsubq_u32(all, vshlq_n_u32(counts.part[p], 1));
    return counts;
}

/* One bit for each lane that is all ones. */
INLINE uint32_t bits_of(const uint32x4_t *lanes)
{
    static const uint32_t place[4] = {1, 2, 4, 8};
    const uint32x4_t each = vld1q_u32(place);
    uint32_t bits = 0;
    EACH_PART bits |= vaddvq_u32(vandq_u32(lanes[p], each)) << 4 * p;
    return bits;
}

INLINE uint32_t vi_at_least(vi a, const i32 *limits)
{
    EACH_PART a.part[p] =
        vcgeq_s32(vreinterpretq_s32_u32(a.part[p]), vld1q_s32((const int32_t *)limits + 4 * p));
    return bits_of(a.part);
}

INLINE vw vw_load(const u32 *w)
{
    vw y;
    EACH_PART y.part[p] = vld1q_u32((const uint32_t *)w + 4 * p);
    return y;
}

INLINE vw vw_repeat(uint32_t x)
{
    vw y;
    EACH_PART y.part[p] = vdupq_n_u32(x);
    return y;
}

INLINE vc vc_start(vi sums)
{
    vc y;
    (void)sums;
    EACH_PART y.part[p] = vdupq_n_u8(0);
    return y;
}

INLINE vi vc_finish(vi sums, vc c)
{
    EACH_PART sums.part[p] = vpadalq_u16(sums.part[p], vpaddlq_u8(c.part[p]));
    return sums;
}

INLINE vc vc_step(vc c, vw x, vw w)
{
    EACH_PART
    {
        const uint32x4_t differ = veorq_u32(x.part[p], w.part[p]);
        c.part[p] = vaddq_u8(c.part[p], vcntq_u8(vreinterpretq_u8_u32(differ)));
    }
    return c;
}

INLINE vc vc_masked_step(vc c, vw x, vw mask, vw w)
{
    EACH_PART
    {
        const uint32x4_t differ = vandq_u32(veorq_u32(x.part[p], w.part[p]), mask.part[p]);
        c.part[p] = vaddq_u8(c.part[p], vcntq_u8(vreinterpretq_u8_u32(differ)));
    }
    return c;
}

INLINE vf vf_zero(void)
{
    vf y;
    EACH_PART y.part[p] = vdupq_n_f32(0);
    return y;
}

INLINE vf vf_load(const f32 *x)
{
    vf y;
    EACH_PART y.part[p] = vld1q_f32((const float *)x + 4 * p);
    return y;
}

INLINE void vf_store(f32 *y, vf a)
{
    EACH_PART vst1q_f32((float *)y + 4 * p, a.part[p]);
}

INLINE vf vf_repeat(float x)
{
    vf y;
    EACH_PART y.part[p] = vdupq_n_f32(x);
    return y;
}

INLINE vf vf_of_sums(vi a)
{
    vf y;
    EACH_PART y.part[p] = vcvtq_f32_s32(vreinterpretq_s32_u32(a.part[p]));
    return y;
}

INLINE vf vf_signs(uint32_t bits)
{
    static const uint32_t place[4] = {1, 2, 4, 8};
    const uint32x4_t each = vld1q_u32(place);
    vf y;
    EACH_PART y.part[p] = vbslq_f32(vtstq_u32(vdupq_n_u32(bits >> 4 * p), each), vdupq_n_f32(1.0f),
                                    vdupq_n_f32(-1.0f));
    return y;
}

INLINE vf vf_step(vf sum, vf x, vf w)
{
    EACH_PART sum.part[p] = vaddq_f32(sum.part[p], vmulq_f32(x.part[p], w.part[p]));
    return sum;
}

INLINE uint32_t vf_not_negative(vf a)
{
    vi y;
    EACH_PART y.part[p] = vcgezq_f32(a.part[p]);
    return bits_of(y.part);
}
