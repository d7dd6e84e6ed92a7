//! The values of XML-RPC, and their XML.
//!
//! The reader accepts what the clients of supervisord send, and nothing that could cost memory or time beyond the size
//! of the request: it expands no entities but the five of XML, and limits the depth.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::fault::Fault;

/// The depth of the deepest element.
const DEEPEST: usize = 64;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `int` and `i4`.
    Int(i64),
    /// `boolean`.
    Bool(bool),
    /// `string`, and a value without a type.
    Text(String),
    /// `double`.
    Double(f64),
    /// `array`.
    Array(Vec<Value>),
    /// `struct`.
    Struct(BTreeMap<String, Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl Value {
    /// A struct.
    pub fn of<const N: usize>(fields: [(&str, Value); N]) -> Value {
        Value::Struct(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn write(&self, xml: &mut String) {
        xml.push_str("<value>");
        match self {
            // The type has 32 bits. supervisord caps times in the same way.
            Value::Int(number) => {
                let capped = (*number).clamp(i32::MIN.into(), i32::MAX.into());
                xml.push_str(&format!("<int>{capped}</int>"));
            }
            Value::Bool(value) => xml.push_str(&format!("<boolean>{}</boolean>", u8::from(*value))),
            Value::Text(text) => {
                xml.push_str("<string>");
                escape(text, xml);
                xml.push_str("</string>");
            }
            Value::Double(number) => xml.push_str(&format!("<double>{number}</double>")),
            Value::Array(values) => {
                xml.push_str("<array><data>");
                values.iter().for_each(|value| value.write(xml));
                xml.push_str("</data></array>");
            }
            Value::Struct(fields) => {
                xml.push_str("<struct>");
                for (key, value) in fields {
                    xml.push_str("<member><name>");
                    escape(key, xml);
                    xml.push_str("</name>");
                    value.write(xml);
                    xml.push_str("</member>");
                }
                xml.push_str("</struct>");
            }
        }
        xml.push_str("</value>");
    }
}

/// Adds `text` with its special characters escaped. Characters that XML 1.0 forbids are replaced, because a client
/// would refuse the whole reply.
fn escape(text: &str, xml: &mut String) {
    for symbol in text.chars() {
        match symbol {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '\r' => xml.push_str("&#13;"),
            '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => xml.push(symbol),
            _ => xml.push('\u{fffd}'),
        }
    }
}

impl Fault {
    /// The fault as the member of a list.
    pub fn value(&self) -> Value {
        Value::of([
            ("faultCode", Value::Int(self.code.into())),
            ("faultString", Value::from(self.text.as_str())),
        ])
    }
}

/// The XML of a reply.
pub fn reply(result: &Result<Value, Fault>) -> Vec<u8> {
    let mut xml = String::from("<?xml version='1.0'?>\n<methodResponse>\n");
    match result {
        Ok(value) => {
            xml.push_str("<params>\n<param>\n");
            value.write(&mut xml);
            xml.push_str("\n</param>\n</params>\n");
        }
        Err(fault) => {
            xml.push_str("<fault>\n");
            fault.value().write(&mut xml);
            xml.push_str("\n</fault>\n");
        }
    }
    xml.push_str("</methodResponse>\n");
    xml.into_bytes()
}

/// An element with its text and its children.
#[derive(Debug, Default)]
struct Node {
    tag: String,
    text: String,
    children: Vec<Node>,
}

/// Reads the name and the parameters of a call. `None` if the XML is no call.
pub fn call(xml: &[u8]) -> Option<(String, Vec<Value>)> {
    let root = tree(xml)?;
    if root.tag != "methodCall" {
        return None;
    }
    let name = root.children.iter().find(|node| node.tag == "methodName")?;
    let params = root.children.iter().find(|node| node.tag == "params");
    let params = params.map_or(&[][..], |params| &params.children);
    let param = |node: &Node| value(node.children.first()?);
    let params: Option<Vec<Value>> = params.iter().map(param).collect();
    let name = name.text.trim();
    (!name.is_empty()).then(|| Some((name.to_owned(), params?)))?
}

/// Reads the XML into a tree.
fn tree(xml: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(xml).ok()?;
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Node> = Vec::new();
    loop {
        let done = match reader.read_event().ok()? {
            Event::Start(start) if open.len() < DEEPEST => {
                open.push(node(start.name().as_ref())?);
                None
            }
            Event::Empty(start) => Some(node(start.name().as_ref())?),
            Event::End(_) => open.pop(),
            Event::Text(text) => {
                add(&mut open, &text.decode().ok()?);
                None
            }
            Event::CData(text) => {
                add(&mut open, &text.decode().ok()?);
                None
            }
            Event::GeneralRef(reference) => {
                add(&mut open, &resolve(&reference)?);
                None
            }
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => None,
            // A document type could define entities.
            Event::Start(_) | Event::DocType(_) | Event::Eof => return None,
        };
        match (done, open.last_mut()) {
            (Some(node), Some(parent)) => parent.children.push(node),
            (Some(root), None) => return Some(root),
            (None, _) => {}
        }
    }
}

fn node(tag: &[u8]) -> Option<Node> {
    Some(Node {
        tag: std::str::from_utf8(tag).ok()?.to_owned(),
        ..Node::default()
    })
}

fn add(open: &mut [Node], text: &str) {
    if let Some(node) = open.last_mut() {
        node.text.push_str(text);
    }
}

fn resolve(reference: &BytesRef<'_>) -> Option<String> {
    if let Some(symbol) = reference.resolve_char_ref().ok()? {
        return Some(symbol.into());
    }
    let symbol = match &*reference.decode().ok()? {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    };
    Some(symbol.into())
}

/// The value in a `<value>` element.
fn value(node: &Node) -> Option<Value> {
    if node.tag != "value" {
        return None;
    }
    let Some(typed) = node.children.first() else {
        return Some(Value::Text(node.text.clone()));
    };
    Some(match typed.tag.as_str() {
        "int" | "i4" => Value::Int(typed.text.trim().parse().ok()?),
        "boolean" => Value::Bool(typed.text.trim() == "1"),
        "string" => Value::Text(typed.text.clone()),
        "double" => Value::Double(typed.text.trim().parse().ok()?),
        "base64" => {
            let encoded: String = typed.text.split_whitespace().collect();
            Value::Text(String::from_utf8_lossy(&STANDARD.decode(encoded).ok()?).into_owned())
        }
        "array" => {
            let data = typed.children.iter().find(|node| node.tag == "data")?;
            Value::Array(data.children.iter().map(value).collect::<Option<_>>()?)
        }
        "struct" => {
            let member = |member: &Node| {
                let name = member.children.iter().find(|node| node.tag == "name")?;
                let held = member.children.iter().find(|node| node.tag == "value")?;
                Some((name.text.clone(), value(held)?))
            };
            Value::Struct(typed.children.iter().map(member).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_name_and_values() {
        let xml = "<?xml version='1.0'?><!-- x -->\n<methodCall>\n<methodName>a.b</methodName>\n<params>\n\
            <param><value><string>x &lt;&amp;&#233;<![CDATA[<y>]]></string></value></param>\n\
            <param><value><int>-3</int></value></param><param><value>bare</value></param>\n\
            <param><value><boolean>1</boolean></value></param><param><value><base64>aGk=\n</base64></value></param>\n\
            <param><value><array><data><value><i4>1</i4></value><value/></data></array></value></param>\n\
            <param><value><struct><member><name>k</name><value><string/></value></member></struct></value></param>\n\
            </params>\n</methodCall>";
        let (name, params) = call(xml.as_bytes()).unwrap();
        assert_eq!(name, "a.b");
        let expected = [
            Value::from("x <&\u{e9}<y>"),
            Value::Int(-3),
            Value::from("bare"),
            Value::Bool(true),
            Value::from("hi"),
            Value::Array(vec![Value::Int(1), Value::from("")]),
            Value::of([("k", Value::from(""))]),
        ];
        assert_eq!(params, expected);
        let bare = "<methodCall><methodName>a.b</methodName></methodCall>";
        assert_eq!(call(bare.as_bytes()), Some(("a.b".to_owned(), Vec::new())));
    }

    #[test]
    fn anything_else_is_no_call() {
        let deep = format!(
            "<methodCall><methodName>a</methodName><params><param>{}",
            "<value><array><data>".repeat(10_000)
        );
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><methodCall><methodName>&a;</methodName></methodCall>";
        for xml in [
            "",
            "x",
            "<",
            "<methodCall>",
            "<methodCall></methodCall>",
            "<methodCall><methodName> </methodName></methodCall>",
            "<other><methodName>a</methodName></other>",
            "<methodCall><methodName>a&nbsp;</methodName></methodCall>",
            "<methodCall><methodName>a</methodName><params><param><value><int>x</int></value></param></params>\
             </methodCall>",
            "<methodCall><methodName>a</methodName><params><param><value><odd/></value></param></params></methodCall>",
            "<methodCall><methodName>a</methodName><params><param/></params></methodCall>",
            &deep,
            bomb,
        ] {
            assert_eq!(call(xml.as_bytes()), None, "{xml:.80}");
        }
        assert_eq!(call(b"\xff"), None);
    }

    #[test]
    fn a_reply_is_valid_xml_whatever_its_text() {
        let xml = String::from_utf8(reply(&Ok(Value::from("a<b>&\u{1b}[0m\r\n\u{e9}")))).unwrap();
        assert!(
            xml.contains("<string>a&lt;b&gt;&amp;\u{fffd}[0m&#13;\n\u{e9}</string>"),
            "{xml}"
        );
        let xml = String::from_utf8(reply(&Ok(Value::Int(1 << 40)))).unwrap();
        assert!(xml.contains("<int>2147483647</int>"), "{xml}");
        let fault = reply(&Err(Fault::bad_name("x")));
        let xml = String::from_utf8(fault).unwrap();
        assert!(
            xml.contains("<fault>") && xml.contains("BAD_NAME: x") && xml.contains("<int>10</int>"),
            "{xml}"
        );
    }
}
