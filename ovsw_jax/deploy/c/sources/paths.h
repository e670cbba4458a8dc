#if PATH == PATH_PORTABLE
#include "path_portable.h"
#elif PATH == PATH_AVX2
#include "path_avx2.h"
#elif PATH == PATH_AVX512BW || PATH == PATH_AVX512
#include "path_avx512.h"
#elif PATH == PATH_NEON
#include "path_neon.h"
#else
#error "OVSW_PATH is 1 (portable), 2 (AVX2), 3 (AVX-512BW), 4 (AVX-512 VPOPCNTDQ) or 5 (NEON)"
#endif
