// What the files of the CUDA driver of our own share: its devices, contexts, streams and memory.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101,
              INVALID_CONTEXT = 201, INVALID_PTX = 218, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900,
              CAPTURE_INVALIDATED = 901 };

struct Context {
    int device;
    int retained;
};

// What was captured of a stream.
struct Graph {
    std::vector<std::function<int()>> work;
    bool spoilt = false;  // by a call that no capture allows
};

struct Stream {
    Context *context;
    Graph *captured;  // null unless it is being captured
};

// What the tests set and ask for.
struct Machine {
    int devices = 2, version = 12000, major = 8;
    std::size_t memory = std::size_t{1} << 30;
    bool host_is_device = false;
    int modules = 0, mistakes = 0, synchronizations = 0;
    std::vector<Graph *> captures;  // that have begun, and not ended
};

inline Machine machine;
inline bool initialized = false;
inline Context contexts[2] = {{0, 0}, {1, 0}};
inline std::vector<Context *> stack;

inline Context *current() { return stack.empty() ? nullptr : stack.back(); }

inline int mistake(Result result) {
    machine.mistakes += 1;
    return result;
}

// Null for the streams that need not be made: the default one, and by the handles 1 and 2, that of all threads and of
// each.
inline Stream *made(void *stream) {
    return reinterpret_cast<std::uintptr_t>(stream) <= 2 ? nullptr : static_cast<Stream *>(stream);
}

// What every function needs that works in a context.
inline bool ready(void *stream = nullptr) {
    const bool foreign = made(stream) && made(stream)->context != current();
    return initialized && current() && current()->retained > 0 && !foreign;
}

inline bool is_captured(void *stream) { return made(stream) && made(stream)->captured; }

// What allocates, frees or waits for a device spoils all captures, as in the mode that is the default.
inline bool spoils_captures() {
    for (Graph *graph : machine.captures) graph->spoilt = true;
    return !machine.captures.empty();
}

// Kernels of others, by name: each does a whole launch, from the places of its arguments.
inline std::map<std::string, void (*)(void **arguments)> kernels;

// Whether so many bytes are memory of a device.
bool within(unsigned long long address, std::size_t bytes);

// Does it now, or whenever the graph is launched that the stream is being captured in.
template <typename Work> int run(void *stream, Work work) {
    if (!is_captured(stream)) return work();
    static_cast<Stream *>(stream)->captured->work.push_back(work);
    return SUCCESS;
}
