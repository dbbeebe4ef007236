// Clock for module `bench`: reset for some cycles, then until it is done or the cycles are up.
#include <cstdio>
#include <cstdlib>

#include "Vtop.h"
#include "verilated.h"

int main(int argc, char** argv) {
    VerilatedContext context;
    Vtop top{&context};
    const long cycles = argc > 1 ? std::atol(argv[1]) : 1000;
    for (long cycle = 0; cycle < cycles && !top.done; cycle++) {
        top.rst = cycle < 4;
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }
    return 0;
}
