/* @about@
 *
 * Input: @INPUT@ numbers, channels last. Output: @OUTPUT@ numbers.
 */

#ifndef @NAME@_H
#define @NAME@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* More than one needs -fopenmp, and memory for each of them. */
#ifndef @NAME@_THREADS
#define @NAME@_THREADS 1
#endif

#define @NAME@_INPUT_SIZE @INPUT_SIZE@
#define @NAME@_OUTPUT_SIZE @OUTPUT_SIZE@
#define @NAME@_ARENA_BYTES (@ARENA@ + @NAME@_THREADS * @SCRATCH@)

@bits@
/* In memory of its own: one call at a time. */
void @name@_run(const @number@ *input, @number@ *output);

/* In @NAME@_ARENA_BYTES of the caller's, aligned as malloc aligns. */
void @name@_run_in(void *arena, const @number@ *input, @number@ *output);

size_t @name@_arena_bytes(void);

/* What products are counted with here: portable, avx2, avx512bw, avx512 or neon. */
const char *@name@_path(void);
@more@
#ifdef __cplusplus
}
#endif

#endif
