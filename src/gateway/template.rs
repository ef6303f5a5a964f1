//! Path templates of http rules: their grammar, and the form that the matcher takes.
//!
//! Knows nothing of messages: whether a variable names a field is judged where the template is bound to a method.
//!
//! `**` is taken at the end of a template without a verb only, because the matcher cannot express more.

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) variables: Vec<Variable>,
    pub(super) verb: Option<String>,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(String),
    /// One segment, not empty.
    One,
    /// Any number of segments, also none.
    Many,
}

/// A field that is filled from some segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// The field's path, by proto names.
    pub(super) field: Vec<String>,
    /// Its first segment.
    pub(super) start: usize,
    /// The segment after its last.
    pub(super) end: usize,
}

/// A template as the matcher takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// With a parameter for each wildcard, in order.
    pub(super) text: String,
    /// Whether the `**` at the end stands for no segment here.
    pub(super) is_hollow: bool,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, verb) = split_verb(text)?;
        let Some(path) = path.strip_prefix('/') else { return Err("it must begin with a slash".to_owned()) };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb };
        for piece in pieces(path) {
            match piece.strip_prefix('{') {
                Some(rest) => {
                    let inside = rest.strip_suffix('}').filter(|inside| !inside.contains('}')).ok_or("a variable must fill its segment")?;
                    template.variable(inside)?;
                }
                None => template.segments.push(segment(piece)?),
            }
        }
        let mut wildcards = template.segments.iter().skip_while(|segment| **segment != Segment::Many).skip(1);
        if wildcards.any(|segment| !matches!(segment, Segment::Literal(_))) {
            return Err("no wildcard may follow `**`".to_owned());
        }
        Ok(template)
    }

    fn variable(&mut self, inside: &str) -> Result<(), String> {
        let (name, path) = inside.split_once('=').unwrap_or((inside, "*"));
        let field: Vec<String> = name.split('.').map(str::to_owned).collect();
        let is_name = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !part.as_bytes()[0].is_ascii_digit();
        if !field.iter().all(is_name) {
            return Err(format!("`{name}` is no field path"));
        }
        if self.variables.iter().any(|variable| variable.field == field) {
            return Err(format!("the variable {name} stands there twice"));
        }
        let start = self.segments.len();
        for piece in path.split('/') {
            self.segments.push(segment(piece)?);
        }
        self.variables.push(Variable { field, start, end: self.segments.len() });
        Ok(())
    }

    /// The forms that the matcher takes: one, or two for a template that ends in `**`.
    ///
    /// # Errors
    ///
    /// In words, when `**` stands where the matcher cannot express it.
    pub(super) fn patterns(&self) -> Result<Vec<Pattern>, String> {
        let (mut text, mut patterns, mut wildcards) = (String::new(), Vec::new(), 0);
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Literal(literal) => text.push_str(&format!("/{literal}")),
                Segment::One => text.push_str(&format!("/{{p{wildcards}}}")),
                Segment::Many if index + 1 == self.segments.len() && self.verb.is_none() => {
                    let hollow = if text.is_empty() { "/".to_owned() } else { text.clone() };
                    patterns.push(Pattern { text: hollow, is_hollow: true });
                    text.push_str(&format!("/{{*p{wildcards}}}"));
                }
                Segment::Many => return Err("`**` is served at the end of a template without a verb only".to_owned()),
            }
            wildcards += usize::from(!matches!(segment, Segment::Literal(_)));
        }
        if let Some(verb) = &self.verb {
            text.push(':');
            text.push_str(verb);
        }
        patterns.push(Pattern { text, is_hollow: false });
        Ok(patterns)
    }
}

/// Cuts the verb off: what follows the only colon outside variables.
fn split_verb(text: &str) -> Result<(&str, Option<String>), String> {
    let (mut inside, mut colon) = (false, None);
    for (at, c) in text.char_indices() {
        match c {
            '{' if inside => return Err("variables do not nest".to_owned()),
            '{' => inside = true,
            '}' if !inside => return Err("a brace closes that was not opened".to_owned()),
            '}' => inside = false,
            ':' if !inside && colon.is_some() => return Err("there is more than one verb".to_owned()),
            ':' if !inside => colon = Some(at),
            _ => {}
        }
    }
    if inside {
        return Err("a brace is not closed".to_owned());
    }
    let Some(colon) = colon else { return Ok((text, None)) };
    let verb = &text[colon + 1..];
    if verb.is_empty() || !verb.chars().all(is_literal) {
        return Err("the verb must be one word at the end".to_owned());
    }
    Ok((&text[..colon], Some(verb.to_owned())))
}

/// The text between slashes that stand outside variables.
fn pieces(path: &str) -> Vec<&str> {
    let (mut inside, mut pieces, mut start) = (false, Vec::new(), 0);
    for (at, c) in path.char_indices() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            '/' if !inside => {
                pieces.push(&path[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&path[start..]);
    pieces
}

fn segment(piece: &str) -> Result<Segment, String> {
    match piece {
        "" => Err("a segment is empty".to_owned()),
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Many),
        literal if literal.chars().all(is_literal) => Ok(Segment::Literal(literal.to_owned())),
        other => Err(format!("`{other}` is no segment")),
    }
}

/// Whether a character may stand in a literal. Literals are compared with the path as it arrives, so there are no escapes.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~!$&'()+,;=@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, Vec<Segment>, Vec<Variable>, Option<&'static str>);

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    fn variable(field: &str, start: usize, end: usize) -> Variable {
        Variable { field: field.split('.').map(str::to_owned).collect(), start, end }
    }

    #[test]
    fn legal_templates() {
        let table: [Row; 12] = [
            ("/shelves", vec![literal("shelves")], vec![], None),
            ("/a/{b}", vec![literal("a"), Segment::One], vec![variable("b", 1, 2)], None),
            ("/a/{b=*}", vec![literal("a"), Segment::One], vec![variable("b", 1, 2)], None),
            ("/a/{b.c_d}:go", vec![literal("a"), Segment::One], vec![variable("b.c_d", 1, 2)], Some("go")),
            ("/a:stream_logs", vec![literal("a")], vec![], Some("stream_logs")),
            ("/a/{b}/c:batchCreate", vec![literal("a"), Segment::One, literal("c")], vec![variable("b", 1, 2)], Some("batchCreate")),
            ("/{a=p/*/c/*}", vec![literal("p"), Segment::One, literal("c"), Segment::One], vec![variable("a", 0, 4)], None),
            ("/a/{b=**}", vec![literal("a"), Segment::Many], vec![variable("b", 1, 2)], None),
            ("/a/**", vec![literal("a"), Segment::Many], vec![], None),
            ("/a/*/b", vec![literal("a"), Segment::One, literal("b")], vec![], None),
            ("/a/{b=x}", vec![literal("a"), literal("x")], vec![variable("b", 1, 2)], None),
            ("/v1.0/a-b_c~", vec![literal("v1.0"), literal("a-b_c~")], vec![], None),
        ];
        for (text, segments, variables, verb) in table {
            assert_eq!(Template::parse(text), Ok(Template { segments, variables, verb: verb.map(str::to_owned) }), "{text}");
        }
    }

    #[test]
    fn illegal_templates() {
        let table = [
            ("", "begin with a slash"),
            ("a", "begin with a slash"),
            ("/", "empty"),
            ("/a/", "empty"),
            ("//a", "empty"),
            ("/a//b", "empty"),
            ("/a:", "one word"),
            ("/a:b:c", "more than one verb"),
            ("/a:b/c", "one word"),
            ("/a:{b}", "one word"),
            ("/{a", "not closed"),
            ("/a}", "not opened"),
            ("/{a={b}}", "nest"),
            ("/x{a}", "no segment"),
            ("/{a}x", "fill its segment"),
            ("/{a}{b}", "fill its segment"),
            ("/{}", "no field path"),
            ("/{a.}", "no field path"),
            ("/{1a}", "no field path"),
            ("/{a-b}", "no field path"),
            ("/{a=}", "empty"),
            ("/{a=/b}", "empty"),
            ("/{a=b:c}", "no segment"),
            ("/{a}/{a}", "twice"),
            ("/a*", "no segment"),
            ("/***", "no segment"),
            ("/**/*", "follow"),
            ("/**/{a}", "follow"),
            ("/{a=**}/**", "follow"),
            ("/a b", "no segment"),
            ("/a%20b", "no segment"),
            ("/é", "no segment"),
        ];
        for (text, words) in table {
            let fault = Template::parse(text).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
    }

    #[test]
    fn the_matchers_form() {
        let table: [(&str, &[&str]); 5] = [
            ("/a/{b}:go", &["/a/{p0}:go"]),
            ("/{a=p/*/c/*}/d/{e}", &["/p/{p0}/c/{p1}/d/{p2}"]),
            ("/a/**", &["/a", "/a/{*p0}"]),
            ("/{a=**}", &["/", "/{*p0}"]),
            ("/a:b", &["/a:b"]),
        ];
        for (text, expected) in table {
            let patterns = Template::parse(text).unwrap().patterns().unwrap();
            assert_eq!(patterns.iter().map(|pattern| pattern.text.as_str()).collect::<Vec<_>>(), expected, "{text}");
            assert_eq!(patterns.iter().filter(|pattern| pattern.is_hollow).count(), expected.len() - 1, "{text}");
        }
        for text in ["/**/a", "/{a=**}:b", "/a/**:b"] {
            assert!(Template::parse(text).unwrap().patterns().is_err(), "{text}");
        }
    }
}
