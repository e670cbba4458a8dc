/* Stores the sums of 16 filters at a pixel. */

#include "out.h"
#include "window.h"

INLINE TARGET void store_floats(const int mode, const Window *g, vf sums, int pixel, int block,
                                Out out)
{
    f32 *y = (f32 *)out.y + (size_t)pixel * (size_t)g->filters + (size_t)block * 16;
    const int rest = g->filters - block * 16;
    if (mode == AS_AFFINE)
        sums = vf_step(vf_load(out.offset + block * 16), sums, vf_load(out.scale + block * 16));
    if (rest >= 16) {
        vf_store(y, sums);
    } else {
        f32 all[16];
        vf_store(all, sums);
        memcpy(y, all, (size_t)rest * sizeof *y);
    }
}

INLINE TARGET void store_sums(const int mode, const Window *g, vi counts, int taps, int pixel,
                              int block, Out out)
{
    const vi sums = vi_sums(taps * g->channels, counts);
    const int rest = g->filters - block * 16;
    if (mode == AS_AFFINE) {
        store_floats(mode, g, vf_of_sums(sums), pixel, block, out);
    } else if (mode == AS_SIGNS) {
        u32 *y = (u32 *)out.y + (size_t)pixel * (size_t)((g->filters + 31) / 32) + block / 2;
        const uint32_t flips = out.flips ? out.flips[block / 2] : 0;
        const uint32_t bits = vi_at_least(sums, out.limits + block * 16);
        if (block % 2)
            *y = (*y & 0xffffu) | ((bits ^ flips >> 16) << 16);
        else
            *y = bits ^ (flips & 0xffffu);
    } else {
        i32 *y = (i32 *)out.y + (size_t)pixel * (size_t)g->filters + (size_t)block * 16;
        i32 all[16];
        vi_store(all, sums);
        memcpy(y, all, (size_t)(rest < 16 ? rest : 16) * sizeof *y);
    }
}
