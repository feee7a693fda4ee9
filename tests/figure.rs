//! What figures hold and what a cell shows of them.

use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};

fn plane() -> Plane {
    Plane {
        alphas: vec![-1.0, 0.0, 1.0],
        betas: vec![-2.0, 2.0],
        losses: Array2::from_shape_vec((2, 3), vec![1.0, 2.0, 3.0, 4.0, 5.0, 1.0 / 3.0]).unwrap(),
        accuracies: None,
        eigenvalues: None,
        center: 2.5,
    }
}

fn spectrum() -> Spectrum {
    let pair = |value: f64, vector: Vec<f64>| Eigenpair {
        value,
        residual: 0.25,
        vector,
    };
    Spectrum {
        pairs: vec![pair(2.0, vec![1.0, 0.0]), pair(-1.0, vec![0.0, 1.0])],
        dim: 2,
        products: 2,
        converged: true,
    }
}

#[test]
fn planes_keep_their_axes() {
    for figure in [figure::contour(&plane()), figure::surface(&plane())] {
        let trace = &figure.json()["data"][0];
        assert_eq!(trace["x"], json!([-1.0, 0.0, 1.0]));
        assert_eq!(trace["y"], json!([-2.0, 2.0]));
        assert_eq!(trace["z"], json!([[1.0, 2.0, 3.0], [4.0, 5.0, 0.333333]]));
    }
}

#[test]
fn spectra_carry_their_errors() {
    let json = figure::spectrum(&spectrum()).json();
    assert_eq!(json["data"][0]["y"], json!([2.0]));
    assert_eq!(json["data"][0]["error_y"]["array"], json!([0.25]));
    assert_eq!(json["data"][1]["x"], json!([2]));
    assert_eq!(json["data"][1]["y"], json!([-1.0]));
}

/// Every frame has both signs' traces and the axes do not move; the slider asks for the frames by name.
#[test]
fn spectra_in_training_are_frames_with_a_slider() {
    let mut later = spectrum();
    later.pairs[1].value = 1e-12;
    let json = figure::spectra(&[(0, spectrum()), (30, later)]).json();
    let frames = json["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0]["data"], json["data"]);
    let shown = |frame: usize, trace: usize| &frames[frame]["data"][trace];
    assert_eq!(shown(0, 0)["y"], json!([2.0]));
    assert_eq!(
        (&shown(0, 1)["x"], &shown(0, 1)["y"]),
        (&json!([2]), &json!([1.0]))
    );
    assert_eq!(shown(1, 0)["y"], json!([2.0, 1e-12]));
    assert_eq!(shown(1, 0)["error_y"]["array"], json!([0.25, 0.25]));
    assert_eq!(shown(1, 1)["y"], json!([]));

    let range = |axis: &str, end: usize| json["layout"][axis]["range"][end].as_f64().unwrap();
    assert!(range("xaxis", 0) < 1.0 && range("xaxis", 1) > 2.0);
    assert!(range("yaxis", 1) > 2f64.log10() && range("yaxis", 0) > -9.0);
    assert!(frames.iter().all(|frame| frame["layout"].is_null()));

    let steps = json["layout"]["sliders"][0]["steps"].as_array().unwrap();
    for (step, (frame, label)) in steps.iter().zip(frames.iter().zip(["0", "30"])) {
        assert_eq!(
            (&step["label"], &step["method"]),
            (&json!(label), &json!("animate"))
        );
        assert_eq!(step["args"][0], json!([frame["name"]]));
    }
    assert_eq!(steps.len(), 2);
    assert!(
        figure::spectra(&[]).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn components_are_drawn_over_the_order_of_the_points() {
    let points = vec![vec![0.0, 0.0], vec![3.0, 1.0], vec![6.0, 0.0]];
    let pca = Pca::of(&points, 2).unwrap();
    let json = figure::components(&pca, "Steps").json();
    assert_eq!(json["data"].as_array().unwrap().len(), 2);
    assert_eq!(json["data"][0]["x"], json!([0, 1, 2]));
    let places = json["data"][0]["y"]
        .as_array()
        .unwrap()
        .iter()
        .zip([-3.0, 0.0, 3.0]);
    assert!(
        places
            .map(|(y, x)| y.as_f64().unwrap() - x)
            .all(|off| off.abs() < 1e-5)
    );
    // 18 and 2/3 of all.
    assert_eq!(json["data"][1]["name"], "component 2 (3.6 %)");
    assert_eq!(json["layout"]["title"]["text"], "Steps");
}

#[test]
fn a_line_shows_loss_model_and_center() {
    let line = Line {
        alphas: vec![-1.0, 0.0, 1.0],
        losses: vec![3.0, 1.0, 4.0],
        accuracies: None,
        gradient_norms: None,
        center: 1.0,
        slope: 0.5,
        curvature: 4.0,
    };
    let json = figure::line(&line).json();
    assert_eq!(json["data"][0]["y"], json!([3.0, 1.0, 4.0]));
    assert_eq!(json["data"][1]["y"], json!([2.5, 1.0, 3.5]));
    assert_eq!(json["data"][2]["y"], json!([1.0]));
}

#[test]
fn a_figure_is_one_bundle() {
    let figure = figure::contour(&plane());
    let bundle = figure.bundle().unwrap();
    let plotly: Value =
        loss_landscape::serde_json::from_str(bundle.get("application/vnd.plotly.v1+json").unwrap())
            .unwrap();
    assert_eq!(plotly, figure.json());
    let html = bundle.get("text/html").unwrap();
    assert!(html.contains("Plotly.newPlot") && !html.contains("http"));
    assert_eq!(bundle.get("text/plain"), Some("Figure: Loss over a plane"));
}

/// A title could otherwise end the script that holds it.
#[test]
fn text_in_a_figure_stays_text() {
    let mut plot = loss_landscape::plotly::Plot::new();
    let title = "</script><b>";
    plot.set_layout(loss_landscape::plotly::Layout::new().title(title));
    let bundle = Figure::new(plot, title).bundle().unwrap();
    let html = bundle.get("text/html").unwrap();
    assert_eq!(html.matches("</script>").count(), 1, "{html}");
    assert!(!html.contains("<b>\""), "{html}");
}

#[test]
fn tables_are_html() {
    let table = spectrum().bundle().unwrap();
    let html = table.get("text/html").unwrap();
    assert!(
        html.contains("<th>eigenvalue</th>") && html.contains(">2.0000</td>"),
        "{html}"
    );
    assert!(table.get("text/plain").unwrap().contains("eigenvalue"));
}

#[test]
fn an_error_is_not_shown_as_a_value() {
    let failed: Result<Spectrum, Error> = Err(Error::Invalid("no".into()));
    assert_eq!(failed.bundle().unwrap_err().to_string(), "no");
    let fine: Result<Spectrum, Error> = Ok(spectrum());
    assert_eq!(fine.bundle().unwrap(), spectrum().bundle().unwrap());
}

#[test]
fn a_density_has_a_band_and_says_its_width() {
    let curve = loss_landscape::spectral::DensityCurve {
        eigenvalues: vec![0.0, 1.0, 2.0],
        values: vec![10.0, 0.0, 0.1],
        standard_errors: vec![1.0, 0.0, 0.2],
        width: 0.0051234,
    };
    let json = figure::density(&curve).json();
    assert!(
        json["layout"]["title"]["text"]
            .as_str()
            .unwrap()
            .contains("over 0.00512)")
    );
    let traces = json["data"].as_array().unwrap();
    // Zeros and negative edges stay on the logarithmic axis.
    for trace in traces {
        assert!(
            trace["y"]
                .as_array()
                .unwrap()
                .iter()
                .all(|y| y.as_f64().unwrap() > 0.0)
        );
    }
    assert_eq!(traces[1]["y"][0], 11.0);
    assert_eq!(traces[1]["fill"], "tonexty");
}

#[test]
fn curvature_over_a_plane_has_two_sides() {
    let mut plane = plane();
    assert!(
        figure::extremes(&plane).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    plane.eigenvalues = Some(loss_landscape::landscape::Extremes {
        smallest: -&plane.losses,
        largest: plane.losses.clone(),
        residuals: &plane.losses * 1e-3,
    });
    let json = figure::extremes(&plane).json();
    assert_eq!(json["data"][0]["z"][0], json!([-1.0, -2.0, -3.0]));
    assert_eq!(json["data"][1]["z"][0], json!([1.0, 2.0, 3.0]));
    assert_eq!(
        (&json["data"][1]["xaxis"], &json["data"][1]["x"]),
        (&json!("x2"), &json!([-1.0, 0.0, 1.0]))
    );
    let page = figure::extremes(&plane).page();
    assert!(page.starts_with("<!doctype html>") && !page.contains("<script src"));
}
