// Runs the kernels of kernels.cu on the CPU, for tests. The threads of a thread block take turns, each on a stack of its
// own, and stop at every barrier and shuffle until all have come there. The order in which they, and the thread blocks,
// get their turns changes all the time, and shared memory begins as garbage: what relies on an order, or on a barrier
// that is missing, comes out wrong.
//
// Built by tests/cuda.rs: g++ -std=c++17 -O2 -ffp-contract=off -shared -fPIC.

#include "../kernels.cu"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

extern "C" {
extern char __start_shared_memory[], __stop_shared_memory[];
}

Index threadIdx, blockIdx;

namespace {

constexpr unsigned WARP = 32;
constexpr std::size_t STACK = 64 << 10;

enum class State { Running, AtBarrier, AtShuffle, Ended };

struct Fiber {
    std::vector<char> stack = std::vector<char>(STACK);
    State state = State::Ended;
    double offered = 0.0;
    // Whether it runs on its stack already, and where it waits then.
    bool begun = false;
    jmp_buf place;
};

// What ran wrongly: the threads did not come to the same barrier.
bool diverged = false;

jmp_buf scheduler;
std::vector<Fiber> fibers(THREADS);
std::function<void()> kernel;
std::minstd_rand order;

void wait_in(State state) {
    Fiber &fiber = fibers[threadIdx.x];
    fiber.state = state;
    if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}

// A thread in each thread block, one after the other.
void run_fiber() {
    for (;;) {
        kernel();
        wait_in(State::Ended);
    }
}

// Gives a thread its turn. Only the first one needs a context, which is slow: to set one asks the system for signals.
void resume(unsigned thread) {
    Fiber &fiber = fibers[thread];
    threadIdx.x = thread;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.data();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, run_fiber, 0);
    setcontext(&context);
}

// Whether all of some threads wait in `state`; if only some do and the others can't any more, they have diverged.
bool all_wait(unsigned first, unsigned count, State state) {
    const auto waits = [&](const Fiber &fiber) { return fiber.state == state; };
    return std::all_of(fibers.begin() + first, fibers.begin() + first + count, waits);
}

void run_block(unsigned block) {
    std::fill(__start_shared_memory, __stop_shared_memory, static_cast<char>(0xff));
    for (Fiber &fiber : fibers) fiber.state = State::Running;
    std::vector<unsigned> threads(THREADS);
    std::iota(threads.begin(), threads.end(), 0);
    for (;;) {
        std::shuffle(threads.begin(), threads.end(), order);
        bool progress = false;
        for (unsigned thread : threads) {
            if (fibers[thread].state != State::Running) continue;
            progress = true;
            blockIdx.x = block;
            resume(thread);
        }
        if (all_wait(0, THREADS, State::Ended)) return;
        if (all_wait(0, THREADS, State::AtBarrier)) {
            for (Fiber &fiber : fibers) fiber.state = State::Running;
            continue;
        }
        for (unsigned warp = 0; warp < THREADS; warp += WARP)
            if (all_wait(warp, WARP, State::AtShuffle)) {
                for (unsigned i = 0; i < WARP; ++i) fibers[warp + i].state = State::Running;
                progress = true;
            }
        if (!progress) {
            diverged = true;
            // They wait in the middle of the kernel: the next block's begin anew.
            for (Fiber &fiber : fibers) fiber.begun = false;
            return;
        }
    }
}

}  // namespace

void __syncthreads() { wait_in(State::AtBarrier); }

double __shfl_down_sync(unsigned, double value, unsigned distance, unsigned width) {
    const unsigned self = threadIdx.x;
    fibers[self].offered = value;
    wait_in(State::AtShuffle);
    const unsigned other = self % width + distance < width ? self + distance : self;
    const double received = fibers[other].offered;
    // Nobody may offer the next value before all have this one.
    wait_in(State::AtShuffle);
    return received;
}

// Launches the kernel of that number; 0 if all went well.
extern "C" int koala_shim_launch(unsigned number, unsigned blocks, const void *argument) {
    if (number == 3) {
        const Changes changes = *static_cast<const Changes *>(argument);
        kernel = [=] { koala_change(changes); };
    } else {
        const Launch launch = *static_cast<const Launch *>(argument);
        void (*const kernels[])(Launch) = {koala_dots, koala_recursion, koala_update};
        if (number > 3) return 1;
        kernel = [=] { kernels[number](launch); };
    }
    std::vector<unsigned> numbers(blocks);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::shuffle(numbers.begin(), numbers.end(), order);
    diverged = false;
    for (unsigned block : numbers) {
        run_block(block);
        if (diverged) return 2;
    }
    return 0;
}

// The size of the argument of that kernel.
extern "C" std::size_t koala_shim_argument_bytes(unsigned number) {
    return number == 3 ? sizeof(Changes) : sizeof(Launch);
}

// The conversions that are the shim's own, for a test.
extern "C" float koala_shim_from_half(unsigned short bits) { return __half2float(__ushort_as_half(bits)); }
extern "C" unsigned short koala_shim_to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
