// Trains a perceptron of two layers on the UCI digits with KOALA++. With an installed libkoala, from the root of the
// repository:
//
//     c++ -std=c++17 -O2 ffi/cpp/examples/perceptron.cpp $(pkg-config --cflags --libs koala eigen3)
//     gunzip -c cli/data/digits.csv.gz | ./a.out
//
// Each line of the data is 64 pixels, 0 to 16, and the digit. Every fifth line is held out. Ends with 1 if the accuracy
// there is below 90 %, or if the input is something else.

#include "koala.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <random>
#include <sstream>

using Eigen::MatrixXf;
using Eigen::VectorXf;

constexpr int pixels = 64, hidden = 64, digits = 10, batch = 32, epochs = 40;

/// Appends what is on a line: the pixels, and the digit.
void parse(const std::string& line, std::size_t number, std::vector<float>& values) {
  std::istringstream numbers(line);
  bool good = true;
  for (int place = 0; place <= pixels && good; ++place) {
    int value = -1;
    char comma = ',';
    numbers >> value;
    if (place < pixels) numbers >> comma;
    good = numbers && comma == ',' && value >= 0 && value <= (place < pixels ? 16 : digits - 1);
    values.push_back(static_cast<float>(value));
  }
  if (!good || !(numbers >> std::ws).eof())
    throw std::runtime_error("line " + std::to_string(number) + ": expected 64 pixels from 0 to 16, and a digit");
}

/// A layer's weights, rows times columns, even within the bounds of He for a layer before max(0, x).
MatrixXf initial(int rows, int columns, std::mt19937& random) {
  const float bound = std::sqrt(6.0f / static_cast<float>(columns));
  const auto even = [&] { return bound * (static_cast<float>(random() >> 8) * 0x1p-23f - 1); };
  return MatrixXf::NullaryExpr(rows, columns, even);
}

/// The network: parameters, and what a gradient is written to. Samples are columns.
struct Perceptron {
  MatrixXf weight1, weight2, weight1_gradient, weight2_gradient, activity, probabilities;
  VectorXf bias1 = VectorXf::Zero(hidden), bias2 = VectorXf::Zero(digits), bias1_gradient, bias2_gradient, losses;

  explicit Perceptron(std::mt19937& random)
      : weight1(initial(hidden, pixels, random)), weight2(initial(digits, hidden, random)) {}

  void forward(const MatrixXf& images) {
    activity = ((weight1 * images).colwise() + bias1).cwiseMax(0);
    probabilities = (weight2 * activity).colwise() + bias2;
    for (auto column : probabilities.colwise()) {
      column.array() = (column.array() - column.maxCoeff()).exp();
      column /= column.sum();
    }
  }

  /// The loss of each sample, -log of its digit's probability, and the gradient of their mean.
  void backward(const MatrixXf& images, const VectorXf& labels) {
    const Eigen::Index count = images.cols();
    losses.resize(count);
    for (Eigen::Index sample = 0; sample < count; ++sample) {
      float& probability = probabilities(static_cast<Eigen::Index>(labels[sample]), sample);
      losses[sample] = -std::log(std::max(probability, 1e-30f));
      probability -= 1;
    }
    probabilities /= static_cast<float>(count);
    const MatrixXf inner = (activity.array() > 0).select(weight2.transpose() * probabilities, 0);
    weight2_gradient = probabilities * activity.transpose();
    bias2_gradient = probabilities.rowwise().sum();
    weight1_gradient = inner * images.transpose();
    bias1_gradient = inner.rowwise().sum();
  }
};

int main() try {
  std::vector<float> values[2];
  std::size_t number = 0;
  for (std::string line; std::getline(std::cin, line); ++number)
    parse(line, number + 1, values[number % 5 == 0 ? 1 : 0]);
  if (number < 5 * batch) throw std::runtime_error("expected at least 160 lines on standard input");
  const MatrixXf train = MatrixXf::Map(values[0].data(), pixels + 1, values[0].size() / (pixels + 1));
  const MatrixXf held_out = MatrixXf::Map(values[1].data(), pixels + 1, values[1].size() / (pixels + 1));

  std::mt19937 random(0);
  Perceptron net(random);
  koala::check_version();
  koala::Optimizer optimizer;
  koala::Settings settings;
  settings.initial_variance = settings.process_noise = 1;
  const koala::Group biases = optimizer.add_group(settings);
  settings.weight_decay = 5e-4;
  const koala::Group weights = optimizer.add_group(settings);
  const auto weight1 = optimizer.add_tensor<float>("weight1", hidden * pixels, weights);
  const auto bias1 = optimizer.add_tensor<float>("bias1", hidden, biases);
  const auto weight2 = optimizer.add_tensor<float>("weight2", digits * hidden, weights);
  const auto bias2 = optimizer.add_tensor<float>("bias2", digits, biases);

  std::vector<Eigen::Index> order(static_cast<std::size_t>(train.cols()));
  std::iota(order.begin(), order.end(), 0);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    if (epoch == epochs * 6 / 10)
      for (koala::Group group : {weights, biases}) optimizer.set_learning_rate(group, 0.1);
    for (std::size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[random() % left]);
    for (std::size_t first = 0; first + batch <= order.size(); first += batch) {
      const MatrixXf samples = train(Eigen::all, std::vector<Eigen::Index>(&order[first], &order[first] + batch));
      const MatrixXf images = samples.topRows(pixels) / 16;
      net.forward(images);
      net.backward(images, samples.row(pixels));
      optimizer.step(koala::Loss::from_samples(net.losses), {{weight1, net.weight1, net.weight1_gradient},
                                                             {bias1, net.bias1, net.bias1_gradient},
                                                             {weight2, net.weight2, net.weight2_gradient},
                                                             {bias2, net.bias2, net.bias2_gradient}});
    }
  }

  net.forward(held_out.topRows(pixels) / 16);
  double right = 0;
  for (Eigen::Index sample = 0, digit = 0; sample < held_out.cols(); ++sample) {
    net.probabilities.col(sample).maxCoeff(&digit);
    if (digit == static_cast<Eigen::Index>(held_out(pixels, sample))) ++right;
  }
  const double accuracy = 100 * right / static_cast<double>(held_out.cols());
  std::printf("held-out accuracy %.1f %%\n", accuracy);
  return accuracy < 90 ? 1 : 0;
} catch (const std::exception& error) {
  std::cerr << "perceptron: " << error.what() << '\n';
  return 1;
}
