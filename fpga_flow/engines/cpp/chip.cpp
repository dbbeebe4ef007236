// Runs a Verilated chip pin by pin: the host's end of its serial line, or FTDI's end of the FIFO.
// Long-lived: requests on stdin, answers on stdout, until stdin ends.
//
//   'W' u32 n, n bytes           these bytes are to be sent to the chip
//   'R' u32 n, u64 cycles        run until n bytes have come from the chip, or nothing has
//                                moved for so many cycles of its clock; answer: u64 cycles since power-up, u64 contention,
//                                u32 n, n bytes
//   'S' f64 cycles a bit, u32 %  the line's speed; how often FTDI's FIFO is full or empty
// All little-endian, as the machines this runs on.
#include "Vtop.h"
#include "verilated.h"
#include "line.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <unistd.h>
#include <vector>

namespace {

// Verilator warns on stdout, of a memory file that ends early say: answers get it for themselves,
// and what is printed goes to stderr.
FILE* answers;
FILE* own_stdout() {
    FILE* own = fdopen(dup(1), "wb");
    dup2(2, 1);
    return own;
}

std::deque<uint8_t> to_chip, from_chip;
uint64_t cycles = 0, contention = 0;
double bit_cycles = DIVQAT_DIVIDER;
uint32_t stall_percent = 0;

struct Random {  // xorshift
    uint64_t state = 88172645463325252ull;
    bool percent(uint32_t p) {
        if (p == 0) return false;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (state >> 11) % 100 < p;
    }
} chance;

#if DIVQAT_FT245
// FTDI's chip, clocked at 60 MHz; its pins change behind the clock's edge.
constexpr double FT_PERIOD = 1e6 / 60.0;  // ps
double core_time = 0, ft_time = 100, core_period = DIVQAT_PERIOD_PS;

void ft_edge(Vtop& top) {
    const bool read = !top.ft_rd_n && !top.ft_rxf_n, write = !top.ft_wr_n && !top.ft_txe_n;
    if (read && top.ft_oe_n) contention++;  // nothing drives the bus
    if (write) from_chip.push_back(top.ft_out);
    top.ft_clk = 1;
    top.eval();
    if (read) to_chip.pop_front();
    top.ft_rxf_n = to_chip.empty() || chance.percent(stall_percent);
    top.ft_txe_n = chance.percent(stall_percent);
    if (!top.ft_oe_n && top.ft_drive) contention++;
    top.ft_in = !top.ft_oe_n && !to_chip.empty() ? to_chip.front() : 0xEE;
    top.eval();
    top.ft_clk = 0;
    top.eval();
}

void idle_pins(Vtop& top) {
    top.ft_clk = 0;
    top.ft_rxf_n = top.ft_txe_n = 1;
}

void cycle(Vtop& top) {
    for (; ft_time <= core_time; ft_time += FT_PERIOD) ft_edge(top);
    core_time += core_period;
    top.clk_in = 1;
    top.eval();
    top.clk_in = 0;
    top.eval();
}

#else
// The host's serial port. Times are in cycles of the chip's clock.
double send_next = 0, take_next = 0;
int send_bit = -1, take_bit = -1;
uint8_t taken = 0;

void idle_pins(Vtop& top) { top.uart_rx = 1; }

void cycle(Vtop& top) {
    const double now = static_cast<double>(cycles);
    if (send_bit < 0 && !to_chip.empty()) {
        send_bit = 0;
        send_next = now;
    }
    if (send_bit >= 0 && now >= send_next) {
        const uint8_t byte = to_chip.front();
        top.uart_rx = send_bit == 0 ? 0 : send_bit <= 8 ? byte >> (send_bit - 1) & 1 : 1;
        send_next += bit_cycles;
        if (send_bit++ == 10) {  // the stop bit is over
            to_chip.pop_front();
            send_bit = -1;
            if (!to_chip.empty()) {
                top.uart_rx = 0;
                send_bit = 1;
            }
        }
    }
    if (take_bit < 0) {
        if (!top.uart_tx) {
            take_bit = 0;
            take_next = now + 1.5 * bit_cycles;
        }
    } else if (now >= take_next) {
        take_next += bit_cycles;
        if (take_bit < 8) {
            taken = taken >> 1 | (top.uart_tx ? 0x80 : 0);
            take_bit++;
        } else {
            if (!top.uart_tx) contention++;  // no stop bit
            from_chip.push_back(taken);
            take_bit = -1;
        }
    }
    top.clk_in = 1;
    top.eval();
    top.clk_in = 0;
    top.eval();
}
#endif

bool get(void* to, size_t bytes) { return bytes == 0 || fread(to, bytes, 1, stdin) == 1; }

}  // namespace

int main(int argc, char** argv) {
    answers = own_stdout();
    auto context = std::make_unique<VerilatedContext>();
    context->commandArgs(argc, argv);
    auto top = std::make_unique<Vtop>(context.get());
    top->clk_in = 0;
    idle_pins(*top);
    top->eval();
    for (; cycles < 200; cycles++) cycle(*top);  // configured and out of reset before the host
    char request;
    while (get(&request, 1)) {
        uint32_t n = 0;
        if (request == 'W') {
            if (!get(&n, 4)) return 2;
            std::vector<uint8_t> bytes(n);
            if (!get(bytes.data(), n)) return 2;
            to_chip.insert(to_chip.end(), bytes.begin(), bytes.end());
        } else if (request == 'S') {
            if (!get(&bit_cycles, 8) || !get(&stall_percent, 4)) return 2;
        } else if (request == 'R') {
            uint64_t limit;
            if (!get(&n, 4) || !get(&limit, 8)) return 2;
            // The limit is on cycles in which nothing moved, as a real port's time-out.
            for (uint64_t idle = 0; from_chip.size() < n && idle < limit; cycles++) {
                const size_t before = from_chip.size() + to_chip.size();
                cycle(*top);
                idle = from_chip.size() + to_chip.size() == before ? idle + 1 : 0;
            }
            const uint32_t count = from_chip.size() < n ? from_chip.size() : n;
            std::vector<uint8_t> bytes(from_chip.begin(), from_chip.begin() + count);
            from_chip.erase(from_chip.begin(), from_chip.begin() + count);
            fwrite(&cycles, 8, 1, answers);
            fwrite(&contention, 8, 1, answers);
            fwrite(&count, 4, 1, answers);
            fwrite(bytes.data(), 1, count, answers);
            fflush(answers);
        } else {
            return 2;
        }
    }
    return 0;
}
