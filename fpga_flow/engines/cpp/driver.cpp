// Runs a Verilated design on batches of images. Long-lived: a request on stdin, an answer on
// stdout, until stdin ends. Every batch begins with a reset, so that answers and cycles do not
// depend on what ran before.
//
// Request:  u64 x 12: images, input beats an image, bytes a beat, output beats an image, bytes a
//           beat, idle %, back-pressure %, seed, watchdog (cycles without a handshake), kept taps
//           (0 or 1), number of limits, drain (1: go on after the last output beat, until nothing
//           has moved for the watchdog's time); limits (u64 each); then the input beats.
// Answer:   u64 x 8: status (0 whole, 1 hung), cycles, cycle of the first input beat, input beats
//           taken, output beats given, number of taps, nanoseconds spent, 0; for each tap u64 x 5:
//           beats seen, bytes a beat, valid and ready when it ended, most beats between the tap
//           before (or the input) and this one; u64 an image: cycle of its
//           last output beat; the output beats; and the beats of every tap where they are kept.
// All little-endian, as the machines this runs on. ports.h names the taps: TAPS is their number,
// EVERY_TAP is TAP(index, node, bytes) for each; FIFOS likewise, FIFO(index, "name").
#include "Vtop.h"
#include "Vtop___024root.h"
#include "verilated.h"
#include "ports.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
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

using Bytes = std::vector<uint8_t>;

template <class T> void put(T& port, const uint8_t* beat, size_t bytes) {
    if constexpr (std::is_integral_v<T>) {
        uint64_t value = 0;
        memcpy(&value, beat, bytes);
        port = static_cast<T>(value);
    } else {
        memset(&port, 0, sizeof port);
        memcpy(&port, beat, bytes);
    }
}

template <class T> void append(Bytes& to, const T& port, size_t bytes) {
    const size_t end = to.size();
    to.resize(end + bytes);
    memcpy(to.data() + end, &port, bytes);
}

struct Random {  // xorshift
    uint64_t state;
    bool percent(uint64_t p) {
        if (p == 0) return false;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (state >> 11) % 100 < p;
    }
};

struct Tap {
    uint64_t beats = 0, bytes = 0, valid = 0, ready = 0, most = 0;
    Bytes data;
};

bool read_all(void* to, size_t bytes) { return bytes == 0 || fread(to, bytes, 1, stdin) == 1; }
bool write_all(const void* from, size_t bytes) {
    return bytes == 0 || fwrite(from, bytes, 1, answers) == 1;
}

std::vector<uint64_t> limits;

}  // namespace

#ifdef DIVQAT_FIFO_BITS
// Asked by every FIFO (fifo_limited.sv) at reset: the entries it may hold. Those inside of layers
// hold what the layer gives them.
extern "C" int divqat_fifo_limit(const char* path, int own) {
    const char* dot = strrchr(path, '.');
    const char* instance = dot ? dot + 1 : path;
#define FIFO(k, name) \
    if (strcmp(instance, name) == 0) return static_cast<int>(limits.at(k));
    EVERY_FIFO
#undef FIFO
    return own;
}
#endif

// What Vtop::eval() calls, without the message queue's locks around it.
void Vtop___024root___eval(Vtop___024root* vlSelf);

int main() {
    answers = own_stdout();
    Vtop top;
    top.ap_clk = 0;
    top.eval();  // runs the initial blocks, which read the memory files
    const auto eval = [&top] { Vtop___024root___eval(top.rootp); };
    uint64_t head[12];
    while (read_all(head, sizeof head)) {
        const uint64_t images = head[0], in_beats = head[1], in_bytes = head[2];
        const uint64_t out_beats = head[3], out_bytes = head[4], idle = head[5], stall = head[6];
        const uint64_t watchdog = head[8];
        [[maybe_unused]] const bool keep = head[9] != 0;
        const bool drain = head[11] != 0;
        if (in_bytes > sizeof top.s_axis_tdata || out_bytes > sizeof top.m_axis_tdata) return 3;
        limits.resize(head[10]);
        if (!read_all(limits.data(), 8 * limits.size())) return 2;
        Bytes in(images * in_beats * in_bytes);
        if (!read_all(in.data(), in.size())) return 2;
        const uint64_t wanted = images * out_beats, given = images * in_beats;
        Bytes out;
        out.reserve(wanted * out_bytes);
        std::vector<uint64_t> last(images);
        std::vector<Tap> taps(TAPS);
        const auto start = std::chrono::steady_clock::now();

        top.s_axis_tvalid = 0;
        top.m_axis_tready = 0;
        top.ap_rst_n = 0;
        for (int i = 0; i < 32; i++) {
            top.ap_clk = 0;
            eval();
            top.ap_clk = 1;
            eval();
        }
        top.ap_rst_n = 1;

        Random random{head[7] * 0x9E3779B97F4A7C15ull + 0x1234567ull};
        uint64_t cycle = 0, taken = 0, got = 0, quiet = 0, first = 0;
        bool offered = false;
        while ((got < wanted || drain) && quiet < watchdog) {
            // Valid, once offered, stays until it is taken: the rule of AXI-Stream.
            if (!offered && taken < given && !random.percent(idle)) {
                offered = true;
                put(top.s_axis_tdata, &in[taken * in_bytes], in_bytes);
            }
            top.s_axis_tvalid = offered;
            top.m_axis_tready = !random.percent(stall);
            top.ap_clk = 0;
            eval();  // combinational paths settle; the falling edge does nothing
            quiet++;
            if (offered && top.s_axis_tready) {
                if (taken++ == 0) first = cycle;
                offered = false;
                quiet = 0;
            }
            if (top.m_axis_tready && top.m_axis_tvalid) {
                if (got < wanted) {
                    append(out, top.m_axis_tdata, out_bytes);
                    if ((got + 1) % out_beats == 0) last[got / out_beats] = cycle;
                }
                got++;
                quiet = 0;
            }
#define TAP(k, name, width)                                            \
    taps[k].valid = top.tap_##name##_tvalid;                           \
    taps[k].ready = top.tap_##name##_tready;                           \
    if (taps[k].valid && taps[k].ready) {                              \
        taps[k].beats++;                                               \
        if (keep) append(taps[k].data, top.tap_##name##_tdata, width); \
        quiet = 0;                                                     \
    }
            EVERY_TAP
#undef TAP
            for (size_t k = 0; k < taps.size(); k++) {
                const uint64_t before = k ? taps[k - 1].beats : taken;
                if (before > taps[k].beats) {
                    taps[k].most = std::max(taps[k].most, before - taps[k].beats);
                }
            }
            top.ap_clk = 1;
            eval();
            cycle++;
        }
#define TAP(k, name, width) taps[k].bytes = width;
        EVERY_TAP
#undef TAP
        const auto spent = std::chrono::steady_clock::now() - start;
        const uint64_t answer[8] = {
            got < wanted, cycle, first, taken, got, taps.size(),
            static_cast<uint64_t>(std::chrono::nanoseconds(spent).count()), 0};
        bool ok = write_all(answer, sizeof answer);
        for (const Tap& tap : taps) ok = ok && write_all(&tap, 5 * sizeof(uint64_t));
        ok = ok && write_all(last.data(), 8 * last.size());
        out.resize(wanted * out_bytes);
        ok = ok && write_all(out.data(), out.size());
        for (const Tap& tap : taps) ok = ok && write_all(tap.data.data(), tap.data.size());
        if (!ok || fflush(answers) != 0) return 4;
    }
    return 0;
}
