//! The parameter tensors of well-known models, by name and shape, as their usual implementations have them: those of
//! torchvision for images, GPT-2's and Llama's own for text.

/// A tensor of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// As the implementation names it.
    pub name: String,
    /// Its extents.
    pub extents: Vec<usize>,
}

impl Shape {
    /// The number of elements.
    pub fn length(&self) -> usize {
        self.extents.iter().product()
    }
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// ResNet-50, say.
    pub name: &'static str,
    /// In the order in which the implementation lists them.
    pub shapes: Vec<Shape>,
}

impl Architecture {
    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        self.shapes.iter().map(Shape::length).sum()
    }
}

/// All that this file has, the smallest first.
pub fn all() -> Vec<Architecture> {
    vec![
        resnet_50_normalizations(),
        mobilenet_v3_large(),
        resnet_18(),
        resnet_50(),
        vit_b_16(),
        gpt_2_small(),
        tiny_llama(),
    ]
}

struct Shapes(Vec<Shape>);

impl Shapes {
    fn tensor(&mut self, name: impl Into<String>, extents: &[usize]) {
        self.0.push(Shape { name: name.into(), extents: extents.into() });
    }

    /// Weight and bias.
    fn pair(&mut self, name: &str, weight: &[usize], bias: usize) {
        self.tensor(format!("{name}.weight"), weight);
        self.tensor(format!("{name}.bias"), &[bias]);
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.pair(name, &[outputs, inputs], outputs);
    }

    fn normalization(&mut self, name: &str, channels: usize) {
        self.pair(name, &[channels], channels);
    }

    /// A convolution without bias and the batch normalization after it.
    fn convolution(&mut self, names: [&str; 2], inputs: usize, outputs: usize, kernel: usize) {
        self.tensor(format!("{}.weight", names[0]), &[outputs, inputs, kernel, kernel]);
        self.normalization(names[1], outputs);
    }
}

/// Residual networks: `blocks` in each of four stages, of two convolutions, or of three with a fourfold width at the end.
fn resnet(name: &'static str, blocks: [usize; 4], bottleneck: bool) -> Architecture {
    let mut shapes = Shapes(Vec::new());
    shapes.convolution(["conv1", "bn1"], 3, 64, 7);
    let mut inputs = 64;
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let width = 64 << stage;
        let outputs = if bottleneck { 4 * width } else { width };
        for block in 0..blocks {
            let prefix = format!("layer{}.{block}", stage + 1);
            let convolutions = match bottleneck {
                false => vec![(inputs, width, 3), (width, outputs, 3)],
                true => vec![(inputs, width, 1), (width, width, 3), (width, outputs, 1)],
            };
            for (i, (inputs, outputs, kernel)) in convolutions.into_iter().enumerate() {
                let names = [format!("{prefix}.conv{}", i + 1), format!("{prefix}.bn{}", i + 1)];
                shapes.convolution([&names[0], &names[1]], inputs, outputs, kernel);
            }
            if inputs != outputs {
                let names = [format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1")];
                shapes.convolution([&names[0], &names[1]], inputs, outputs, 1);
            }
            inputs = outputs;
        }
    }
    shapes.linear("fc", inputs, 1000);
    Architecture { name, shapes: shapes.0 }
}

/// He et al., 2016.
pub fn resnet_18() -> Architecture {
    resnet("ResNet-18", [2, 2, 2, 2], false)
}

/// He et al., 2016.
pub fn resnet_50() -> Architecture {
    resnet("ResNet-50", [3, 4, 6, 3], true)
}

/// The batch normalizations of [`resnet_50`] alone: many small tensors, whose steps cost more than their elements.
pub fn resnet_50_normalizations() -> Architecture {
    let mut shapes = resnet_50().shapes;
    shapes.retain(|shape| shape.extents.len() == 1 && !shape.name.starts_with("fc"));
    Architecture { name: "ResNet-50's normalizations", shapes }
}

/// Howard et al., 2019.
pub fn mobilenet_v3_large() -> Architecture {
    // Kernel, inner channels, output channels, whether there is a squeeze and excitation.
    const BLOCKS: [(usize, usize, usize, bool); 15] = [
        (3, 16, 16, false),
        (3, 64, 24, false),
        (3, 72, 24, false),
        (5, 72, 40, true),
        (5, 120, 40, true),
        (5, 120, 40, true),
        (3, 240, 80, false),
        (3, 200, 80, false),
        (3, 184, 80, false),
        (3, 184, 80, false),
        (3, 480, 112, true),
        (3, 672, 112, true),
        (5, 672, 160, true),
        (5, 960, 160, true),
        (5, 960, 160, true),
    ];
    let mut shapes = Shapes(Vec::new());
    shapes.convolution(["features.0.0", "features.0.1"], 3, 16, 3);
    let mut inputs = 16;
    for (i, (kernel, inner, outputs, squeezes)) in BLOCKS.into_iter().enumerate() {
        let mut layers = 0;
        let mut name = || {
            layers += 1;
            format!("features.{}.block.{}", i + 1, layers - 1)
        };
        if inner != inputs {
            let name = name();
            shapes.convolution([&format!("{name}.0"), &format!("{name}.1")], inputs, inner, 1);
        }
        let depthwise = name();
        shapes.convolution([&format!("{depthwise}.0"), &format!("{depthwise}.1")], 1, inner, kernel);
        if squeezes {
            let squeeze = name();
            // A quarter, to the nearest multiple of 8, and never less than 90 % of it.
            let nearest = (inner / 4 + 4) / 8 * 8;
            let squeezed = if nearest * 10 < inner / 4 * 9 { nearest + 8 } else { nearest };
            shapes.pair(&format!("{squeeze}.fc1"), &[squeezed, inner, 1, 1], squeezed);
            shapes.pair(&format!("{squeeze}.fc2"), &[inner, squeezed, 1, 1], inner);
        }
        let project = name();
        shapes.convolution([&format!("{project}.0"), &format!("{project}.1")], inner, outputs, 1);
        inputs = outputs;
    }
    shapes.convolution(["features.16.0", "features.16.1"], inputs, 960, 1);
    shapes.linear("classifier.0", 960, 1280);
    shapes.linear("classifier.3", 1280, 1000);
    Architecture { name: "MobileNetV3-Large", shapes: shapes.0 }
}

/// Dosovitskiy et al., 2021.
pub fn vit_b_16() -> Architecture {
    let width = 768;
    let mut shapes = Shapes(Vec::new());
    shapes.tensor("class_token", &[1, 1, width]);
    shapes.pair("conv_proj", &[width, 3, 16, 16], width);
    shapes.tensor("encoder.pos_embedding", &[1, 14 * 14 + 1, width]);
    for layer in 0..12 {
        let name = |part| format!("encoder.layers.encoder_layer_{layer}.{part}");
        shapes.normalization(&name("ln_1"), width);
        shapes.tensor(name("self_attention.in_proj_weight"), &[3 * width, width]);
        shapes.tensor(name("self_attention.in_proj_bias"), &[3 * width]);
        shapes.linear(&name("self_attention.out_proj"), width, width);
        shapes.normalization(&name("ln_2"), width);
        shapes.linear(&name("mlp.0"), width, 4 * width);
        shapes.linear(&name("mlp.3"), 4 * width, width);
    }
    shapes.normalization("encoder.ln", width);
    shapes.linear("heads.head", width, 1000);
    Architecture { name: "ViT-B/16", shapes: shapes.0 }
}

/// Radford et al., 2019. The output layer is the embedding again.
pub fn gpt_2_small() -> Architecture {
    let width = 768;
    let mut shapes = Shapes(Vec::new());
    shapes.tensor("wte.weight", &[50257, width]);
    shapes.tensor("wpe.weight", &[1024, width]);
    for layer in 0..12 {
        let name = |part| format!("h.{layer}.{part}");
        shapes.normalization(&name("ln_1"), width);
        shapes.pair(&name("attn.c_attn"), &[width, 3 * width], 3 * width);
        shapes.pair(&name("attn.c_proj"), &[width, width], width);
        shapes.normalization(&name("ln_2"), width);
        shapes.pair(&name("mlp.c_fc"), &[width, 4 * width], 4 * width);
        shapes.pair(&name("mlp.c_proj"), &[4 * width, width], width);
    }
    shapes.normalization("ln_f", width);
    Architecture { name: "GPT-2 small", shapes: shapes.0 }
}

/// Zhang et al., 2024: Llama's architecture with a thousand million parameters.
pub fn tiny_llama() -> Architecture {
    let (width, keys, inner, words) = (2048, 256, 5632, 32000);
    let mut shapes = Shapes(Vec::new());
    shapes.tensor("model.embed_tokens.weight", &[words, width]);
    for layer in 0..22 {
        let mut tensor =
            |part, extents: &[usize]| shapes.tensor(format!("model.layers.{layer}.{part}.weight"), extents);
        tensor("self_attn.q_proj", &[width, width]);
        tensor("self_attn.k_proj", &[keys, width]);
        tensor("self_attn.v_proj", &[keys, width]);
        tensor("self_attn.o_proj", &[width, width]);
        tensor("mlp.gate_proj", &[inner, width]);
        tensor("mlp.up_proj", &[inner, width]);
        tensor("mlp.down_proj", &[width, inner]);
        tensor("input_layernorm", &[width]);
        tensor("post_attention_layernorm", &[width]);
    }
    shapes.tensor("model.norm.weight", &[width]);
    shapes.tensor("lm_head.weight", &[words, width]);
    Architecture { name: "TinyLlama-1.1B", shapes: shapes.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn their_sizes_are_those_known() {
        let known = [
            ("ResNet-50's normalizations", 106, 53_120),
            ("MobileNetV3-Large", 174, 5_483_032),
            ("ResNet-18", 62, 11_689_512),
            ("ResNet-50", 161, 25_557_032),
            ("ViT-B/16", 152, 86_567_656),
            ("GPT-2 small", 148, 124_439_808),
            ("TinyLlama-1.1B", 201, 1_100_048_384),
        ];
        for (model, known) in all().iter().zip(known) {
            assert_eq!((model.name, model.shapes.len(), model.parameters()), known);
            let names: HashSet<&str> = model.shapes.iter().map(|shape| &*shape.name).collect();
            assert_eq!(names.len(), model.shapes.len(), "{}: each name is there once", model.name);
        }
    }
}
