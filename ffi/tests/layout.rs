//! The structs are laid out in C as they are in Rust: a C program is written that asserts it, and compiled and run.

mod common;

use std::mem::offset_of;

use koala::*;

/// The C assertions on structs. A member that is not named here is an error of the compiler's.
macro_rules! structs {
    ($($name:ident { $($member:ident)* })*) => {{
        let mut lines = Vec::new();
        $(
            let _every_member_is_named = |$name { $($member: _),* }: $name| ();
            lines.push(format!("ASSERT(sizeof({0}) == {1});", stringify!($name), size_of::<$name>()));
            lines.push(format!("ASSERT(_Alignof({0}) == {1});", stringify!($name), align_of::<$name>()));
            $(
                let (member, offset) = (stringify!($member).trim_start_matches("r#"), offset_of!($name, $member));
                lines.push(format!("ASSERT(offsetof({}, {member}) == {offset});", stringify!($name)));
            )*
        )*
        lines
    }};
}

/// The C assertions on enums, of the size that a value has in structs and calls.
macro_rules! enums {
    ($($name:ident)*) => { [$(format!("ASSERT(sizeof({0}) == {1});", stringify!($name), size_of::<$name>())),*] };
}

#[test]
fn structs_and_enums_have_the_same_layout_in_c() {
    let mut lines = structs! {
        koala_backend_info { size backend present name description absent_because }
        koala_settings { size learning_rate weight_decay initial_variance process_noise variant frozen prior_variance }
        koala_loss { mean second_moment }
        koala_step {
            size groups group_count method loss noise gradient_factor gradient_limit backend on_non_finite on_breakdown
            norms
        }
        koala_method {
            size kind nesterov momentum beta1 beta2 epsilon variance process_noise covariance velocity_variance
            velocity_decay velocity_noise
        }
        koala_scalars { h_h h_v innovation_variance steps }
        koala_tensor {
            size length r#type state_type copy_type group exchange reserved parameters gradient v h copy scalars
        }
        koala_tensor_report {
            outcome reserved innovation_variance alpha lambda w gain gradient_norm measurement_norm parameters_norm
        }
        koala_report {
            size backend reserved step noise gradient_norm gain stepped first_steps restarts skipped frozen non_finite
            breakdowns withheld
        }
        koala_dots { a b c t gradient_squared }
        koala_config {
            size method gradient_factor gradient_limit clip_norm initial_noise noise_decay noise backend on_non_finite
            on_breakdown threads norms
        }
        koala_cuda_state { size v h scalars }
        koala_cuda_counts { size steps launches waits }
        koala_parameters { size tensor length r#type copy_type parameters gradient copy }
        koala_loaded { size tensors differences }
    };
    lines.extend(enums! {
        koala_status koala_backend koala_variant koala_element_type koala_on_non_finite koala_on_breakdown
        koala_state_type koala_copy_type koala_outcome koala_noise koala_method_kind
        koala_loading
    });
    let header = std::fs::read_to_string(common::here().join("../include/koala.h")).unwrap();
    for declared in header.lines().filter_map(|line| line.strip_prefix("typedef struct ")?.strip_suffix(" {")) {
        assert!(lines.iter().any(|line| line.contains(&format!("({declared})"))), "{declared} is not asserted");
    }
    let head = "#include <koala.h>\n#define ASSERT(fact) _Static_assert(fact, #fact)\n";
    let text = format!("{head}{}\nint main(void) {{ return 0; }}\n", lines.join("\n"));
    common::run(&common::compile_text("layout.c", &text), &[], &[]);
}
