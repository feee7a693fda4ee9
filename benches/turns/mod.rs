//! Measurements in turn with another program.

use std::io::{BufRead, Write};

use loss_landscape::Error;
use loss_landscape::serde_json::Value;

/// Reads the name of a quantity from each line of standard input, and prints its measurement as a line of JSON.
pub fn serve(mut measure: impl FnMut(&str) -> Result<Value, Error>) -> Result<(), Error> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::Invalid(format!("standard input: {e}")))?;
        println!("{}", measure(line.trim())?);
        let flushed = std::io::stdout().flush();
        flushed.map_err(|e| Error::Invalid(format!("standard output: {e}")))?;
    }
    Ok(())
}

/// Milliseconds that `run` takes.
pub fn milliseconds<R>(run: impl FnOnce() -> Result<R, Error>) -> Result<f64, Error> {
    let started = std::time::Instant::now();
    run()?;
    Ok(1e3 * started.elapsed().as_secs_f64())
}

/// Error for a quantity that a program does not measure.
pub fn unknown(quantity: &str) -> Error {
    Error::Invalid(format!("no quantity is called {quantity:?}"))
}
