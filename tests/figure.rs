//! Content of figures, and their display in cells.

use loss_landscape::figure::Figure;
use loss_landscape::landscape::StatisticsSource;
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};
use loss_landscape::spectral::{Eigenpair, Spectrum};
use loss_landscape::train::{Epoch, History};

fn plane() -> Plane {
    Plane {
        alphas: vec![-1.0, 0.0, 1.0],
        betas: vec![-2.0, 2.0],
        losses: Array2::from_shape_vec((2, 3), vec![1.0, 2.0, 3.0, 4.0, 5.0, 1.0 / 3.0]).unwrap(),
        accuracies: None,
        eigenvalues: None,
        center: 2.5,
        statistics: StatisticsSource::None,
        fingerprint: 0,
    }
}

fn spectrum() -> Spectrum {
    let pair = |value: f64, vector: Vec<f64>| Eigenpair {
        value,
        residual: 0.25,
        vector,
        rank: None,
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

/// Buttons switch between contours and surface, and between linear and logarithmic losses.
#[test]
fn planes_have_buttons() {
    let mut flat = plane();
    flat.losses = Array2::from_shape_vec((2, 3), vec![1.0, 1.0, 1.0, 10.0, 1.0, 100.0]).unwrap();
    let json = figure::contour(&flat).json();
    // Most of the plane would have one colour: levels are logarithmic.
    assert_eq!(
        json["data"][0]["z"],
        json!([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    );
    assert_eq!(
        json["data"][0]["text"],
        json!([[1.0, 1.0, 1.0], [10.0, 1.0, 100.0]])
    );
    assert_eq!(json["data"][0]["colorbar"]["ticktext"][0], "1");
    let menus = json["layout"]["updatemenus"].as_array().unwrap();
    let types = |i: usize| &menus[0]["buttons"][i]["args"][0]["type"];
    assert_eq!(types(0), &json!(["contour", "scatter"]));
    assert_eq!(types(1), &json!(["surface", "scatter3d"]));
    assert_eq!(
        (&menus[0]["active"], &menus[1]["active"]),
        (&json!(0), &json!(1))
    );
    let linear = &menus[1]["buttons"][0]["args"][0]["z"];
    assert_eq!(linear[0], json!([[1.0, 1.0, 1.0], [10.0, 1.0, 100.0]]));
    let surface = figure::surface(&flat).json();
    assert_eq!(surface["data"][0]["z"], *linear.get(0).unwrap());
    assert_eq!(surface["data"][0]["surfacecolor"][1][2], 2.0);
    // The camera is above the first of the lowest corners, α = 1 and β = −2.
    let eye = &surface["layout"]["scene"]["camera"]["eye"];
    assert_eq!(*eye, json!({"x": 1.3, "y": -1.3, "z": 1.6}));
    // A loss of 0 has no logarithm.
    flat.losses[[0, 0]] = 0.0;
    let json = figure::contour(&flat).json();
    assert_eq!(json["layout"]["updatemenus"].as_array().unwrap().len(), 1);
    assert_eq!(json["data"][0]["z"][0][0], 0.0);
}

#[test]
fn spectra_have_error_bars() {
    let json = figure::spectrum(&spectrum()).json();
    assert_eq!(json["data"][0]["y"], json!([2.0]));
    assert_eq!(json["data"][0]["error_y"]["array"], json!([0.25]));
    assert_eq!(json["data"][1]["x"], json!([2]));
    assert_eq!(json["data"][1]["y"], json!([-1.0]));
}

/// Every frame has traces of both signs and the same axes. The slider selects frames by name.
#[test]
fn an_animation_has_frames_and_a_slider() {
    let mut later = spectrum();
    later.pairs[1].value = 1e-12;
    let json = figure::animation(&[(0, spectrum()), (30, later)]).json();
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
        figure::animation(&[]).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn components_are_drawn_over_the_order_of_the_points() {
    let points = vec![vec![0.0, 0.0], vec![3.0, 1.0], vec![6.0, 0.0]];
    let pca = Pca::fit(&points, 2).unwrap();
    let json = figure::components(&pca, "Steps").json();
    assert_eq!(json["data"].as_array().unwrap().len(), 2);
    assert_eq!(json["data"][0]["x"], json!([0, 1, 2]));
    assert_eq!(json["data"][0]["y"], json!([-3.0, 0.0, 3.0]));
    // The squares sum to 18 and 2/3, so the second component explains 3.6 %.
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
        statistics: StatisticsSource::None,
        fingerprint: 0,
    };
    let json = figure::line(&line).json();
    assert_eq!(json["data"][0]["y"], json!([3.0, 1.0, 4.0]));
    assert_eq!(json["data"][1]["y"], json!([2.5, 1.0, 3.5]));
    assert_eq!(json["data"][2]["y"], json!([1.0]));
}

/// A trajectory of two snapshots that ends at the centre of the plane.
fn path() -> Projection {
    Projection {
        steps: vec![0, 5],
        alphas: vec![1.0, 0.0],
        betas: vec![-2.0, 0.0],
        losses: vec![7.0, 2.5],
        plane_losses: vec![3.0, 2.5],
        distances: vec![0.5, 0.0],
        statistics: StatisticsSource::None,
    }
}

#[test]
fn a_trajectory_is_drawn_on_its_plane() {
    for (figure, kind) in [
        (figure::trajectory(&plane(), &path()), "scatter"),
        (figure::trajectory_surface(&plane(), &path()), "scatter3d"),
    ] {
        let json = figure.json();
        let [line, dots, first] = [2, 3, 4].map(|i| &json["data"][i]);
        assert_eq!(dots["type"], kind);
        assert_eq!(dots["x"], json!([1.0, 0.0]));
        assert_eq!(dots["y"], json!([-2.0, 0.0]));
        assert!(dots["text"][0].as_str().unwrap().contains("loss 7.0"));
        assert_eq!(
            (&first["x"], &first["marker"]["symbol"]),
            (&json!([1.0]), &json!("square"))
        );
        // The second of four pieces of the line.
        assert_eq!((&line["x"][1], &line["y"][1]), (&json!(0.75), &json!(-1.5)));
    }
    let surface = figure::trajectory_surface(&plane(), &path()).json();
    // The path is drawn above the surface by a fortieth of its height, 5 − 1/3. Between the points of the grid, the surface is
    // bilinear: 3.5 at the centre, which is above the loss there.
    let lift = (5.0 - 1.0 / 3.0) / 40.0;
    let heights = &surface["data"][3]["z"];
    for (height, loss) in [(&heights[0], 3.0), (&heights[1], 3.5)] {
        assert!(
            (height.as_f64().unwrap() - loss - lift).abs() < 1e-5,
            "{heights}"
        );
    }
    let animation = figure::trajectory_animation(&plane(), &path()).json();
    let frames = animation["frames"].as_array().unwrap();
    let lengths =
        |frame: usize| [1, 2].map(|i| frames[frame]["data"][i]["x"].as_array().unwrap().len());
    assert_eq!((lengths(0), lengths(1)), ([1, 1], [5, 2]));
    assert_eq!(frames[1]["traces"], json!([1, 2, 3]));
    assert_eq!(animation["layout"]["sliders"][0]["steps"][1]["label"], "5");
}

#[test]
fn an_overview_has_eight_panels_that_do_not_touch() {
    let line = Line {
        alphas: vec![-1.0, 1.0],
        losses: vec![3.0, 4.0],
        accuracies: None,
        gradient_norms: None,
        center: 1.0,
        slope: 0.0,
        curvature: 0.000123,
        statistics: StatisticsSource::None,
        fingerprint: 0,
    };
    let epoch = |epoch: u32, train_loss: f64| Epoch {
        epoch,
        train_loss,
        train_accuracy: None,
        gradient_norm: 1.0,
        test_loss: 2.0 * train_loss,
        test_accuracy: None,
        learning_rate: 0.1,
        seconds: 0.0,
    };
    let history = History {
        epochs: vec![epoch(1, 0.5), epoch(2, 0.25)],
        best: None,
    };
    let hessian = Dense::new(Array2::from_diag_elem(2, -3.0)).unwrap();
    let mut spectrum = spectrum();
    spectrum.pairs.push(Eigenpair {
        value: 0.0,
        residual: 0.0,
        vector: vec![0.0, 0.0],
        rank: None,
    });
    let figure = figure::overview(&plane(), &hessian, &spectrum, &[line], &history);
    let json = figure.json();

    // The panel of each trace.
    let ends = |domain: &Value| [0, 1].map(|i| domain[i].as_f64().unwrap());
    let mut panels: Vec<([f64; 2], [f64; 2])> = Vec::new();
    for trace in json["data"].as_array().unwrap() {
        let scene = &json["layout"]["scene"]["domain"];
        let axis = |name: &str| {
            let number = match trace[format!("{name}axis")].as_str() {
                Some(id) => id.strip_prefix(name).unwrap(),
                None => "",
            };
            &json["layout"][format!("{name}axis{number}")]["domain"]
        };
        let panel = match trace["type"].as_str().unwrap() {
            "surface" | "scatter3d" => (ends(&scene["x"]), ends(&scene["y"])),
            _ => (ends(axis("x")), ends(axis("y"))),
        };
        if !panels.contains(&panel) {
            panels.push(panel);
        }
    }
    assert_eq!(panels.len(), 8);
    assert_eq!(json["layout"]["annotations"].as_array().unwrap().len(), 8);
    let apart = |a: [f64; 2], b: [f64; 2]| a[1] < b[0] || b[1] < a[0];
    for (i, a) in panels.iter().enumerate() {
        for b in &panels[..i] {
            assert!(apart(a.0, b.0) || apart(a.1, b.1), "{a:?} and {b:?}");
        }
    }

    let on = |axis: &str| -> Vec<&Value> {
        let traces = json["data"].as_array().unwrap().iter();
        traces.filter(|t| t["xaxis"] == axis).collect()
    };
    assert_eq!(on("x3")[0]["x"], json!([2.0, -1.0, 0.0]));
    assert_eq!(on("x4")[0]["z"], json!([[-3.0, 0.0], [0.0, -3.0]]));
    assert_eq!(on("x5")[0]["name"], "λ = 0.00012");
    // An eigenvalue of zero is left out, because it has no logarithm.
    assert_eq!(
        (&on("x6")[0]["y"], &on("x6")[1]["y"]),
        (&json!([2.0]), &json!([1.0]))
    );
    assert_eq!(on("x7")[1]["y"], json!([1.0, 0.5]));
    let page = figure.page();
    assert!(page.contains(r#""domain":{"x":[0.56,1.0],"y":[0.785,1.0]}"#));
}

#[test]
fn a_figure_is_one_bundle() {
    let figure = figure::contour(&plane());
    let bundle = figure.bundle().unwrap();
    let plotly: Value =
        loss_landscape::serde_json::from_str(bundle.get("application/vnd.plotly.v1+json").unwrap())
            .unwrap();
    assert_eq!(plotly, figure.json());
    assert_eq!(bundle.get("text/plain"), Some("Figure: Loss on a plane"));
    // The export template makes HTML from the JSON.
    assert_eq!(bundle.get("text/html"), None);
}

/// A title must not end its script element.
#[test]
fn text_in_a_figure_stays_text() {
    let mut plot = loss_landscape::plotly::Plot::new();
    let title = "</script><b>";
    plot.set_layout(loss_landscape::plotly::Layout::new().title(title));
    let page = Figure::new(&plot, title).page();
    let end = page.rfind("</script>").unwrap();
    let script = &page[page[..end].rfind("<script>").unwrap()..end];
    assert!(script.contains(r"\u003c/script>\u003cb>"), "{script}");
}

#[test]
fn tables_are_html() {
    let table = spectrum().bundle().unwrap();
    let html = table.get("text/html").unwrap();
    assert!(
        html.contains(">eigenvalue</th>") && html.contains(">2.0000</td>"),
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
fn a_density_has_an_error_band_and_states_its_width() {
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
fn extreme_eigenvalues_have_two_panels() {
    let mut plane = plane();
    assert!(
        figure::extreme_eigenvalues(&plane).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    plane.eigenvalues = Some(loss_landscape::landscape::ExtremeEigenvalues {
        smallest: -&plane.losses,
        largest: plane.losses.clone(),
        errors: &plane.losses * 1e-3,
        checked: plane.losses.mapv(|_| true),
    });
    let json = figure::extreme_eigenvalues(&plane).json();
    assert_eq!(json["data"][0]["z"][0], json!([-1.0, -2.0, -3.0]));
    assert_eq!(json["data"][1]["z"][0], json!([1.0, 2.0, 3.0]));
    assert_eq!(
        (&json["data"][1]["xaxis"], &json["data"][1]["x"]),
        (&json!("x2"), &json!([-1.0, 0.0, 1.0]))
    );
    let page = figure::extreme_eigenvalues(&plane).page();
    assert!(page.starts_with("<!doctype html>") && !page.contains("<script src"));
    // Narrow windows do not cut it off.
    assert!(page.contains("function fitFigure(") && page.contains("fitFigure(box, {"));
}

#[test]
fn a_chart_has_measured_and_expected_series() {
    let chart = figure::Chart::new("title", "k", "error")
        .line("a", [(1.0, 10.0), (2.0, 0.0), (4.0, 0.1)])
        .expected("a by theory", [(1.0, 11.0), (4.0, 0.2)])
        .estimates("b", [(1.0, 3.0, 0.5), (f64::NAN, 1.0, 0.1)])
        .level("limit", 2.0)
        .log_y();
    let json = chart.figure().json();
    let data = &json["data"];
    // Zeros have no logarithm, and NaN is not drawn.
    assert_eq!(
        (&data[0]["x"], &data[0]["y"]),
        (&json!([1.0, 4.0]), &json!([10.0, 0.1]))
    );
    assert_eq!(data[2]["error_y"]["array"], json!([0.5]));
    assert_eq!(
        (&data[3]["x"], &data[3]["y"]),
        (&json!([1.0, 4.0]), &json!([2.0, 2.0]))
    );
    let color = |i: usize| &data[i]["line"]["color"];
    assert_eq!((color(0), color(2)), (color(1), color(3)));
    assert_ne!(color(0), color(2));
    assert_eq!(data[1]["line"]["dash"], "dash");
    assert_eq!(json["layout"]["yaxis"]["type"], "log");
    assert_eq!(json["layout"]["xaxis"]["title"]["text"], "k");
}

#[test]
fn a_matrix_is_shown_with_its_blocks() {
    let matrix = Array2::from_shape_vec((2, 2), vec![1.0, -3.0, -3.0, 2.0]).unwrap();
    let blocks = [("a".to_owned(), 0..1), ("b".to_owned(), 1..2)];
    let json = figure::matrix(&Dense::new(matrix).unwrap(), &blocks).json();
    let map = &json["data"][0];
    assert_eq!(map["z"], json!([[1.0, -3.0], [-3.0, 2.0]]));
    assert_eq!((&map["zmin"], &map["zmax"]), (&json!(-3.0), &json!(2.0)));
    // The first row is on top.
    assert_eq!(json["layout"]["yaxis"]["range"], json!([1.5, -0.5]));
    assert_eq!(json["layout"]["xaxis"]["ticktext"], json!(["a", "b"]));
    assert_eq!(json["layout"]["shapes"].as_array().unwrap().len(), 2);
    // Hover texts name the parameters.
    assert_eq!(map["x"], json!(["a[0]", "b[0]"]));
    // Most entries would be white: colours are logarithmic, and hover texts show the entries.
    let matrix = Array2::from_shape_fn((3, 3), |(i, j)| if i + j == 0 { -1000.0 } else { 1.0 });
    let json = figure::matrix(&Dense::new(matrix).unwrap(), &[]).json();
    let map = &json["data"][0];
    assert_eq!(map["customdata"][0], json!([-1000.0, 1.0, 1.0]));
    let value = |column: usize| map["z"][0][column].as_f64().unwrap();
    // ln(1 + |v|/1), with a thousandth of the largest entry as the unit.
    assert!((value(0) + 1001f64.ln()).abs() < 1e-5 && (value(1) - 2f64.ln()).abs() < 1e-5);
    assert_eq!(
        map["colorbar"]["ticktext"],
        json!(["-1000", "-100", "-10", "0"])
    );
}

#[test]
fn planes_side_by_side_share_their_colours() {
    let (low, mut high) = (plane(), plane());
    high.losses *= 100.0;
    let json = figure::planes(&[("low", &low), ("high", &high)]).json();
    // Each plane has two traces: the contours and the centre.
    let contours = [&json["data"][0], &json["data"][2]];
    assert_eq!(contours[0]["contours"], contours[1]["contours"]);
    let logarithm = |panel: usize| contours[panel]["z"][0][0].as_f64().unwrap();
    assert_eq!((logarithm(0), logarithm(1)), (0.0, 2.0));
    let levels = &contours[0]["contours"];
    assert_eq!(levels["start"].as_f64().unwrap(), -0.477121);
    assert_eq!(levels["end"].as_f64().unwrap(), 2.69897);
    assert_eq!(contours[1]["xaxis"], "x2");
    assert_eq!(
        [&contours[0]["showscale"], &contours[1]["showscale"]],
        [&json!(true), &json!(false)]
    );
    // At most six planes are drawn. A loss of 0 is replaced, because it has no logarithm.
    high.losses[[0, 0]] = 0.0;
    let json = figure::planes(&[("zero", &high); 7]).json();
    assert_eq!(json["data"].as_array().unwrap().len(), 12);
    let floor = json["data"][0]["z"][0][0].as_f64().unwrap();
    assert!((floor - (500f64.log10() - 6.0)).abs() < 1e-4);
    assert!(
        figure::planes::<&str, Plane>(&[]).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn spectra_on_one_axis() {
    let hidden = Spectrum {
        pairs: spectrum()
            .pairs
            .into_iter()
            .map(|p| Eigenpair { residual: 1.5, ..p })
            .collect(),
        ..spectrum()
    };
    let json = figure::spectra(&[("a", spectrum()), ("b", hidden)]).json();
    let traces = json["data"].as_array().unwrap();
    let found: Vec<_> = traces.iter().map(|t| (&t["name"], &t["y"])).collect();
    let [a, negative, b] = ["a", "a, λ < 0", "b"].map(|name| json!(name));
    assert_eq!(
        found,
        [
            (&a, &json!([2.0])),
            (&negative, &json!([1.0])),
            (&b, &json!([2.0]))
        ]
    );
    assert_eq!(traces[0]["marker"]["color"], traces[1]["marker"]["color"]);
    assert_ne!(traces[0]["marker"]["color"], traces[2]["marker"]["color"]);
    assert_eq!(json["layout"]["yaxis"]["type"], "log");
}

#[test]
fn figures_can_be_drawn_on_other_threads() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Figure>();
    let chart = figure::Chart::new("Squares", "n", "n²").points("n²", [(1.0, 1.0), (2.0, 4.0)]);
    let figure = std::thread::spawn(move || chart.figure()).join().unwrap();
    assert_eq!(figure.json()["data"][0]["y"][1], 4.0);
}

#[test]
fn a_trace_is_added_on_top() {
    let mut figure = figure::Chart::new("Squares", "n", "n²")
        .line("n²", [(1.0, 1.0), (2.0, 4.0)])
        .figure();
    figure.add_trace(loss_landscape::plotly::Scatter::new(vec![3], vec![9]).name("next"));
    let data = figure.json()["data"].take();
    assert_eq!(data.as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&data[1]["name"], &data[1]["y"][0]),
        (&"next".into(), &9.into())
    );
}

/// Whether a browser for images is installed.
fn has_browser() -> bool {
    let programs = [
        "google-chrome",
        "google-chrome-stable",
        "chromium",
        "chromium-browser",
    ];
    let starts = |program: &&str| {
        std::process::Command::new(program)
            .arg("--version")
            .output()
            .is_ok()
    };
    programs.iter().any(starts)
}

#[test]
fn a_figure_is_saved_in_the_format_of_its_extension() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let figure = figure::surface(&plane()).with_size(320, 160);
    figure.save(path("a.HTML")).unwrap();
    let page = std::fs::read_to_string(path("a.HTML")).unwrap();
    assert_eq!(page, figure.page());
    assert!(page.contains("plotly.js v") && !page.contains("<script src"));
    if !has_browser() {
        let error = figure.save(path("a.png")).unwrap_err().to_string();
        assert!(error.contains("install Chrome or Chromium"), "{error}");
        return;
    }
    // The size of a PNG is in its header.
    let size = |name: &str| {
        let bytes = std::fs::read(path(name)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    figure.save(path("a.png")).unwrap();
    assert_eq!(size("a.png"), [1000, 500]);
    figure.clone().with_scale(2.0).save(path("b.png")).unwrap();
    assert_eq!(size("b.png"), [640, 320]);
    figure.save(path("a.svg")).unwrap();
    let svg = std::fs::read_to_string(path("a.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains(r#"width="320""#),
        "{}",
        &svg[..200]
    );
    figure.save(path("a.pdf")).unwrap();
    let pdf = std::fs::read(path("a.pdf")).unwrap();
    let text = String::from_utf8_lossy(&pdf);
    // 320 × 160 pixels of 1/96 of an inch are 240 × 120 points.
    assert!(text.starts_with("%PDF-") && text.contains("/MediaBox [0 0 240 120]"));
    let names = std::fs::read_dir(&dir).unwrap();
    assert_eq!(names.count(), 5);
}

/// A file that is there stays as it is, and no other file is left.
#[test]
fn a_figure_that_cannot_be_saved_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let figure = figure::contour(&plane());
    let error = |figure: &Figure, name: &str| figure.save(path(name)).unwrap_err().to_string();
    for (name, problem) in [
        (
            "a.gif",
            "has the unknown extension .gif. A figure is saved as .png, .svg, .pdf or .html",
        ),
        ("a", "has no extension"),
        ("missing/a.html", "cannot be written"),
    ] {
        let error = error(&figure, name);
        assert!(error.contains(problem), "{error}");
    }
    std::fs::write(path("old.png"), "old").unwrap();
    let zero = error(&figure.clone().with_scale(0.0), "old.png");
    assert!(
        zero.contains("must be positive and finite, found 640 × 560 and scale 0"),
        "{zero}"
    );
    if has_browser() {
        let large = error(&figure.clone().with_scale(100.0), "old.png");
        assert!(
            large.contains("at most 16384 pixels in each direction, found 64000"),
            "{large}"
        );
    }
    assert_eq!(std::fs::read_to_string(path("old.png")).unwrap(), "old");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn a_title_is_replaced_everywhere() {
    let figure = figure::contour(&plane()).with_title("The minimum is flat");
    assert_eq!(figure.title(), "The minimum is flat");
    assert_eq!(
        figure.json()["layout"]["title"]["text"],
        "The minimum is flat"
    );
    assert!(figure.page().contains("The minimum is flat"));
}
