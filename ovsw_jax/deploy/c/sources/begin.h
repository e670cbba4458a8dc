/* Types, and what differs between compilers. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* Buffers share memory, one after the other, whatever their types are. */
#if defined(__GNUC__)
#define MAY_ALIAS __attribute__((__may_alias__))
#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define MAY_ALIAS
#define ALIGNED
#define INLINE static inline
#endif
typedef float f32 MAY_ALIAS;
typedef int16_t i16 MAY_ALIAS;
typedef int32_t i32 MAY_ALIAS;
typedef uint32_t u32 MAY_ALIAS;
typedef uint8_t u8;

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__) && !defined(__AARCH64EB__)
#include <arm_neon.h>
#endif

/* The kinds of instructions that a product is counted with; OVSW_PATH chooses one of them. */
#define PATH_PORTABLE 1
#define PATH_AVX2 2
#define PATH_AVX512BW 3
#define PATH_AVX512 4
#define PATH_NEON 5
