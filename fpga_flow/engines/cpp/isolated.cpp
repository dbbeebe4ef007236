// Runs all layers side by side and tells when each had given 1, 2 and 3 images. ports.h: LAYERS,
// and EVERY_LAYER: LAYER(index, node, beats an image). Argument: cycles at most. Writes u64 x 3 a
// layer, 0 where it did not come to that.
#include "Vtop.h"
#include "verilated.h"
#include "ports.h"

#include <cstdint>
#include <cstdio>
#include <unistd.h>
#include <cstdlib>

namespace {

// Verilator warns on stdout, of a memory file that ends early say: answers get it for themselves,
// and what is printed goes to stderr.
FILE* answers;
FILE* own_stdout() {
    FILE* own = fdopen(dup(1), "wb");
    dup2(2, 1);
    return own;
}

}  // namespace

int main(int count, char** arguments) {
    answers = own_stdout();
    const uint64_t most = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    Vtop top;
    uint64_t when[LAYERS][3] = {};
    top.ap_rst_n = 0;
    for (int i = 0; i < 32; i++) {
        top.ap_clk = 0;
        top.eval();
        top.ap_clk = 1;
        top.eval();
    }
    top.ap_rst_n = 1;
    int missing = 3 * LAYERS;
    for (uint64_t cycle = 1; cycle <= most && missing; cycle++) {
        top.ap_clk = 0;
        top.eval();
        top.ap_clk = 1;
        top.eval();
#define LAYER(k, name, beats)                                      \
    for (uint64_t i = 0; i < 3; i++)                               \
        if (!when[k][i] && top.name##_given >= (i + 1) * beats) {  \
            when[k][i] = cycle;                                    \
            missing--;                                             \
        }
        EVERY_LAYER
#undef LAYER
    }
    return fwrite(when, sizeof when, 1, answers) == 1 ? 0 : 1;
}
