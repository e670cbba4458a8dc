/* 16 lanes in one register of AVX-512. With VPOPCNTDQ it counts the ones of a word; without, it
 * looks up the ones in each half of a byte. */

#if PATH == PATH_AVX512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vpopcntdq")))
#define MOST_STEPS (1 << 30)
#define PIXELS_OF_4 2
#define PIXELS_OF_2 4
#define PIXELS_OF_1 8
#else
#define TARGET __attribute__((target("avx512f,avx512bw")))
#define MOST_STEPS 30 /* a byte counts to 255, 8 at most a step and once at the end */
#define PIXELS_OF_4 0
#define PIXELS_OF_2 2
#define PIXELS_OF_1 4
#define COUNTS_FOURS
#endif
#define FLOAT_PIXELS_OF_4 0
#define FLOAT_PIXELS_OF_2 4
#define FLOAT_PIXELS_OF_1 8

typedef __m512i vi;
typedef __m512i vc;
typedef __m512i vw;
typedef __m512 vf;

INLINE TARGET vi vi_zero(void)
{
    return _mm512_setzero_si512();
}

INLINE TARGET void vi_store(i32 *y, vi a)
{
    _mm512_storeu_si512(y, a);
}

INLINE TARGET vi vi_sums(int bits, vi counts)
{
    return _mm512_sub_epi32(_mm512_set1_epi32(bits), _mm512_slli_epi32(counts, 1));
}

INLINE TARGET uint32_t vi_at_least(vi a, const i32 *limits)
{
    return _mm512_cmpge_epi32_mask(a, _mm512_loadu_si512(limits));
}

INLINE TARGET vw vw_load(const u32 *w)
{
    return _mm512_loadu_si512(w);
}

INLINE TARGET vw vw_repeat(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}

#if PATH == PATH_AVX512
INLINE TARGET vc vc_start(vi sums)
{
    return sums;
}

INLINE TARGET vi vc_finish(vi sums, vc counts)
{
    (void)sums;
    return counts;
}

INLINE TARGET vc add_ones(vc counts, __m512i x)
{
    return _mm512_add_epi32(counts, _mm512_popcnt_epi32(x));
}
#else
INLINE TARGET vc vc_start(vi sums)
{
    (void)sums;
    return vi_zero();
}

INLINE TARGET vi vc_finish(vi sums, vc counts)
{
    const __m512i pairs = _mm512_maddubs_epi16(counts, _mm512_set1_epi8(1));
    return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

INLINE TARGET vc add_ones(vc counts, __m512i x)
{
    const __m512i table = _mm512_set4_epi32(0x04030302, 0x03020201, 0x03020201, 0x02010100);
    const __m512i half = _mm512_set1_epi8(15);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, half));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(x, 4), half);
    return _mm512_add_epi8(counts, _mm512_add_epi8(low, _mm512_shuffle_epi8(table, high)));
}
#endif

INLINE TARGET vc vc_step(vc counts, vw x, vw w)
{
    return add_ones(counts, _mm512_xor_si512(x, w));
}

INLINE TARGET vc vc_masked_step(vc counts, vw x, vw mask, vw w)
{
    return add_ones(counts, _mm512_ternarylogic_epi32(x, w, mask, 0x28)); /* (x ^ w) & mask */
}

#if defined(COUNTS_FOURS)
/* Adders carry from words to words, so that the ones of one word in four are looked up. */
typedef struct {
    __m512i ones, twos; /* bit by bit, what is still to be counted */
    vc fours, singles;
} vq;

INLINE TARGET vq vq_start(vi sums)
{
    const vc zero = vc_start(sums);
    return (vq){zero, zero, zero, zero};
}

INLINE TARGET vi vq_finish(vi sums, vq c)
{
    const vi zero = vi_zero();
    vi high = vc_finish(zero, c.fours);
    high = vc_finish(_mm512_add_epi32(high, high), add_ones(zero, c.twos));
    return vc_finish(_mm512_add_epi32(sums, _mm512_add_epi32(high, high)),
                     add_ones(c.singles, c.ones));
}

INLINE TARGET vq vq_step(vq c, vw x, vw w)
{
    c.singles = vc_step(c.singles, x, w);
    return c;
}

/* The sum of three bits is 0x96, and what it carries 0xe8. */
INLINE TARGET vq vq_four_steps(vq c, const u32 *x, const u32 *w)
{
    const __m512i a = _mm512_xor_si512(vw_repeat(x[0]), vw_load(w));
    const __m512i b = _mm512_xor_si512(vw_repeat(x[1]), vw_load(w + 16));
    const __m512i d = _mm512_xor_si512(vw_repeat(x[2]), vw_load(w + 32));
    const __m512i e = _mm512_xor_si512(vw_repeat(x[3]), vw_load(w + 48));
    const __m512i first = _mm512_ternarylogic_epi64(c.ones, a, b, 0xe8);
    const __m512i ones = _mm512_ternarylogic_epi64(c.ones, a, b, 0x96);
    const __m512i second = _mm512_ternarylogic_epi64(ones, d, e, 0xe8);
    c.ones = _mm512_ternarylogic_epi64(ones, d, e, 0x96);
    c.fours = add_ones(c.fours, _mm512_ternarylogic_epi64(c.twos, first, second, 0xe8));
    c.twos = _mm512_ternarylogic_epi64(c.twos, first, second, 0x96);
    return c;
}
#endif

INLINE TARGET vf vf_zero(void)
{
    return _mm512_setzero_ps();
}

INLINE TARGET vf vf_load(const f32 *x)
{
    return _mm512_loadu_ps(x);
}

INLINE TARGET void vf_store(f32 *y, vf a)
{
    _mm512_storeu_ps(y, a);
}

INLINE TARGET vf vf_repeat(float x)
{
    return _mm512_set1_ps(x);
}

INLINE TARGET vf vf_of_sums(vi a)
{
    return _mm512_cvtepi32_ps(a);
}

INLINE TARGET vf vf_signs(uint32_t bits)
{
    return _mm512_mask_blend_ps((__mmask16)bits, _mm512_set1_ps(-1.0f), _mm512_set1_ps(1.0f));
}

INLINE TARGET vf vf_step(vf sum, vf x, vf w)
{
    return _mm512_add_ps(sum, _mm512_mul_ps(x, w));
}

INLINE TARGET uint32_t vf_not_negative(vf a)
{
    return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GE_OQ);
}
