// What the files of the CUDA driver of our own share: its devices, contexts, streams and memory.

#pragma once

#include <cstddef>
#include <functional>
#include <map>
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

// What every function needs that works in a context.
inline bool ready(void *stream = nullptr) {
    const bool foreign = stream && static_cast<Stream *>(stream)->context != current();
    return initialized && current() && current()->retained > 0 && !foreign;
}

inline bool is_captured(void *stream) { return stream && static_cast<Stream *>(stream)->captured; }

// What allocates, frees or waits for a device spoils all captures, as in the mode that is the default.
inline bool spoils_captures() {
    for (Graph *graph : machine.captures) graph->spoilt = true;
    return !machine.captures.empty();
}

// Whether so many bytes are memory of a device.
bool within(unsigned long long address, std::size_t bytes);

// Does it now, or whenever the graph is launched that the stream is being captured in.
template <typename Work> int run(void *stream, Work work) {
    if (!is_captured(stream)) return work();
    static_cast<Stream *>(stream)->captured->work.push_back(work);
    return SUCCESS;
}
