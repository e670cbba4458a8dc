/* --- one run of the network on each path */

#define NAMED(name, path) name##_##path
#define NAME(name, path) NAMED(name, path)
@renames@

#if defined(OVSW_PATH)
#define PATH OVSW_PATH
#include "@name@.c"
#elif defined(__GNUC__) && defined(__x86_64__)
#define CHOOSES
#define PATH PATH_PORTABLE
#include "@name@.c"
#undef PATH
#define PATH PATH_AVX2
#include "@name@.c"
#undef PATH
#define PATH PATH_AVX512BW
#include "@name@.c"
#undef PATH
#define PATH PATH_AVX512
#include "@name@.c"
#undef PATH
#elif defined(__GNUC__) && defined(__aarch64__) && !defined(__AARCH64EB__)
#define PATH PATH_NEON
#include "@name@.c"
#else
#define PATH PATH_PORTABLE
#include "@name@.c"
#endif

static int chosen_path(void)
{
#if !defined(CHOOSES)
    return PATH;
#else
    if (!__builtin_cpu_supports("avx2"))
        return PATH_PORTABLE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw"))
        return PATH_AVX2;
    return __builtin_cpu_supports("avx512vpopcntdq") ? PATH_AVX512 : PATH_AVX512BW;
#endif
}

const char *@name@_path(void)
{
    static const char *const names[] = {"", "portable", "avx2", "avx512bw", "avx512", "neon"};
    return names[chosen_path()];
}

size_t @name@_arena_bytes(void)
{
    return @NAME@_ARENA_BYTES;
}

void @name@_run_in(void *arena, const @number@ *input, @number@ *output)
{
    Memory memory;
    memory.arena = (unsigned char *)arena;
    memory.input = input;
    memory.output = output;
#if !defined(CHOOSES)
    run(&memory);
#else
    switch (chosen_path()) {
    case PATH_AVX512:
        NAMED(run, 4)(&memory);
        break;
    case PATH_AVX512BW:
        NAMED(run, 3)(&memory);
        break;
    case PATH_AVX2:
        NAMED(run, 2)(&memory);
        break;
    default:
        NAMED(run, 1)(&memory);
    }
#endif
}

void @name@_run(const @number@ *input, @number@ *output)
{
    static ALIGNED unsigned char arena[@NAME@_ARENA_BYTES];
    @name@_run_in(arena, input, output);
}
