//! The few kinds of values that a key can have.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

/// Reads, measures and shows one kind of value. The measure is what a key's range bounds: the
/// number itself, the bytes of a text, the items of a list.
pub trait Value: Sized {
    /// How the documentation calls it.
    const KIND: &'static str;
    /// From the file; `None` where it is of another kind.
    fn read(value: &DeValue<'_>) -> Option<Self>;
    /// From an environment variable.
    fn read_text(text: &str) -> Option<Self>;
    /// What the range bounds.
    fn measure(&self) -> u64;
    /// As it would stand in the file.
    fn show(&self) -> String;
    /// For programs.
    fn json(&self) -> serde_json::Value;
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for String {
    const KIND: &'static str = "text";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
    fn read_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
    fn measure(&self) -> u64 {
        self.len() as u64
    }
    fn show(&self) -> String {
        quoted(self)
    }
    fn json(&self) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(Self::from)
    }
    fn read_text(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }
    fn measure(&self) -> u64 {
        self.as_os_str().len() as u64
    }
    fn show(&self) -> String {
        quoted(&self.display().to_string())
    }
    fn json(&self) -> serde_json::Value {
        self.display().to_string().into()
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "address and port";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
    fn read_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn measure(&self) -> u64 {
        u64::from(self.port())
    }
    fn show(&self) -> String {
        quoted(&self.to_string())
    }
    fn json(&self) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Value for u64 {
    const KIND: &'static str = "whole number";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        Self::from_str_radix(number.as_str(), number.radix()).ok()
    }
    fn read_text(text: &str) -> Option<Self> {
        text.replace('_', "").parse().ok()
    }
    fn measure(&self) -> u64 {
        *self
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
    fn read_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn measure(&self) -> u64 {
        u64::from(*self)
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl Value for Vec<String> {
    const KIND: &'static str = "list of texts";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let items = value.as_array()?;
        items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
    }
    fn read_text(text: &str) -> Option<Self> {
        Some(text.split(',').map(|item| item.trim().to_owned()).filter(|i| !i.is_empty()).collect())
    }
    fn measure(&self) -> u64 {
        self.len() as u64
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
    }
    fn json(&self) -> serde_json::Value {
        self.clone().into()
    }
}
