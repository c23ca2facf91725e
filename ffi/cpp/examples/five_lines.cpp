// The smallest program: one tensor of three parameters, one step.

#include <cstdio>
#include <vector>

#include "koala.hpp"

int main() {
  koala::Optimizer optimizer;
  std::size_t weight = optimizer.add_tensor<float>("weight", 3, optimizer.add_group());
  std::vector<float> parameters{1, -2, 3}, gradient{0.1f, 0.2f, -0.3f};
  koala::Loss loss = koala::Loss::from_samples(std::vector<float>{0.5f, 0.9f});
  optimizer.step(loss, {{weight, parameters, gradient}});
  std::printf("%g %g %g\n", parameters[0], parameters[1], parameters[2]);
}
