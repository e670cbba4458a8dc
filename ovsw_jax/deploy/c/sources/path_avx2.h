/* 16 lanes in two registers of AVX2, which looks up the ones in each half of a byte. */

#define TARGET __attribute__((target("avx2")))
#define PIXELS_OF_4 0
#define PIXELS_OF_2 0
#define PIXELS_OF_1 2
#define FLOAT_PIXELS_OF_4 0
#define FLOAT_PIXELS_OF_2 2
#define FLOAT_PIXELS_OF_1 4
#define MOST_STEPS 31 /* a byte counts to 255, 8 at most a step */

typedef struct {
    __m256i a, b;
} vi;
typedef struct {
    __m256 a, b;
} vf;
typedef vi vc;
typedef vi vw;

INLINE TARGET vi vi_zero(void)
{
    return (vi){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

INLINE TARGET void vi_store(i32 *y, vi a)
{
    _mm256_storeu_si256((__m256i *)(void *)y, a.a);
    _mm256_storeu_si256((__m256i *)(void *)(y + 8), a.b);
}

INLINE TARGET vi vi_sums(int bits, vi c)
{
    const __m256i all = _mm256_set1_epi32(bits);
    return (vi){_mm256_sub_epi32(all, _mm256_slli_epi32(c.a, 1)),
                _mm256_sub_epi32(all, _mm256_slli_epi32(c.b, 1))};
}

INLINE TARGET vw vw_load(const u32 *w)
{
    return (vw){_mm256_loadu_si256((const __m256i *)(const void *)w),
                _mm256_loadu_si256((const __m256i *)(const void *)(w + 8))};
}

INLINE TARGET uint32_t vi_at_least(vi a, const i32 *limits)
{
    const vi t = vw_load((const u32 *)limits);
    const __m256i less_a = _mm256_cmpgt_epi32(t.a, a.a), less_b = _mm256_cmpgt_epi32(t.b, a.b);
    const uint32_t low = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less_a));
    const uint32_t high = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less_b));
    return 0xffffu ^ (low | high << 8);
}

INLINE TARGET vw vw_repeat(uint32_t x)
{
    const __m256i y = _mm256_set1_epi32((int)x);
    return (vw){y, y};
}

INLINE TARGET vc vc_start(vi sums)
{
    (void)sums;
    return vi_zero();
}

/* Bytes of counts to lanes of 32 bits. */
INLINE TARGET __m256i widened(__m256i bytes)
{
    const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

INLINE TARGET vi vc_finish(vi sums, vc c)
{
    return (vi){_mm256_add_epi32(sums.a, widened(c.a)), _mm256_add_epi32(sums.b, widened(c.b))};
}

INLINE TARGET __m256i ones(__m256i x)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(x, half);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi32(x, 4), half);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
}

INLINE TARGET vc vc_step(vc c, vw x, vw w)
{
    return (vc){_mm256_add_epi8(c.a, ones(_mm256_xor_si256(x.a, w.a))),
                _mm256_add_epi8(c.b, ones(_mm256_xor_si256(x.b, w.b)))};
}

INLINE TARGET vc vc_masked_step(vc c, vw x, vw mask, vw w)
{
    return (vc){
        _mm256_add_epi8(c.a, ones(_mm256_and_si256(_mm256_xor_si256(x.a, w.a), mask.a))),
        _mm256_add_epi8(c.b, ones(_mm256_and_si256(_mm256_xor_si256(x.b, w.b), mask.b)))};
}

INLINE TARGET vf vf_zero(void)
{
    return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

INLINE TARGET vf vf_load(const f32 *x)
{
    return (vf){_mm256_loadu_ps((const float *)x), _mm256_loadu_ps((const float *)(x + 8))};
}

INLINE TARGET void vf_store(f32 *y, vf a)
{
    _mm256_storeu_ps((float *)y, a.a);
    _mm256_storeu_ps((float *)(y + 8), a.b);
}

INLINE TARGET vf vf_repeat(float x)
{
    const __m256 y = _mm256_set1_ps(x);
    return (vf){y, y};
}

INLINE TARGET vf vf_of_sums(vi a)
{
    return (vf){_mm256_cvtepi32_ps(a.a), _mm256_cvtepi32_ps(a.b)};
}

INLINE TARGET __m256 eight_signs(uint32_t bits)
{
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), each);
    const __m256 is_set = _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, each));
    return _mm256_blendv_ps(_mm256_set1_ps(-1.0f), _mm256_set1_ps(1.0f), is_set);
}

INLINE TARGET vf vf_signs(uint32_t bits)
{
    return (vf){eight_signs(bits), eight_signs(bits >> 8)};
}

INLINE TARGET vf vf_step(vf sum, vf x, vf w)
{
    return (vf){_mm256_add_ps(sum.a, _mm256_mul_ps(x.a, w.a)),
                _mm256_add_ps(sum.b, _mm256_mul_ps(x.b, w.b))};
}

INLINE TARGET uint32_t vf_not_negative(vf a)
{
    const __m256 zero = _mm256_setzero_ps();
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.a, zero, _CMP_GE_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.b, zero, _CMP_GE_OQ));
    return (uint32_t)low | (uint32_t)high << 8;
}
