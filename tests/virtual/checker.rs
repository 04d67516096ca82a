use crate::plane::Clients;
use crate::prometheus::Prometheus;
use crate::store::{Objects, Write};

pub struct Checker {
    pub wrong: Vec<String>,
    pub prometheus: Prometheus,
}
impl Checker {
    pub fn new(prometheus: Prometheus) -> Self {
        Self {
            wrong: Vec::new(),
            prometheus,
        }
    }
    pub fn see(&mut self, _write: &Write<'_>) {}
    pub fn tick(&mut self, _objects: &Objects, _clients: &Clients) {}
    pub fn trouble(&mut self) {}
    pub fn jumped(&mut self) {}
}
