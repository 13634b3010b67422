//! `/logs/?query=…`: what a request for a node's logs asks for (NodeLogQuery, `enableSystemLogQuery`).
//!
//! `pkg/kubelet/kubelet_server_journal.go`. There is no journal on a node here, so a service is looked for
//! among the files of /var/log, as upstream does where the journal has nothing; times and boots, which are the
//! journal's, choose nothing there. A pattern is a plain word.

use std::path::Path;

use jiff::Timestamp;

use super::call::Call;

/// The most lines that can be asked for.
const MOST_LINES: i64 = 100_000;

/// A query as it was made.
#[derive(Debug, Default, PartialEq)]
pub struct LogQuery {
    pub files: Vec<String>,
    pub services: Vec<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub tail: Option<usize>,
    pub boot: Option<i64>,
    pub pattern: Option<String>,
}

impl LogQuery {
    /// Reads the parameters; nothing where none of them is there, a list of complaints where one is wrong.
    pub fn read(call: &Call) -> Result<Option<Self>, String> {
        let mut query = Self::default();
        let mut wrong = Vec::new();
        let asked: Vec<&str> = call.all("query").collect();
        for one in &asked {
            match one.contains(['/', '\\']) {
                true => query.files.push((*one).to_owned()),
                false if !one.trim().is_empty() => query.services.push((*one).to_owned()),
                false => {}
            }
        }
        if !asked.is_empty() && query.files.is_empty() && query.services.is_empty() {
            let given = quoted_list(&asked);
            wrong.push(format!("query: Invalid value: {given}: query cannot be empty"));
        }
        let mut time = |name: &str| {
            let text = call.parameter(name).filter(|text| !text.is_empty())?;
            match text.parse() {
                Ok(time) => Some(time),
                Err(_) => {
                    wrong.push(format!("{name}: Invalid value: {text:?}: invalid time format"));
                    None
                }
            }
        };
        (query.since, query.until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name: &str| {
            let text = call.parameter(name).filter(|text| !text.is_empty())?;
            match text.parse::<i64>() {
                Ok(number) => Some(number),
                Err(_) => {
                    let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                    wrong.push(format!("{name}: Invalid value: {text:?}: {why}"));
                    None
                }
            }
        };
        query.boot = number("boot");
        let tail = number("tailLines");
        if let Some(tail) = tail {
            match usize::try_from(tail) {
                Ok(lines) if tail <= MOST_LINES => query.tail = Some(lines),
                _ => wrong.push(format!(
                    "tailLines: Invalid value: {tail}: must be between 0 and {MOST_LINES}, inclusive"
                )),
            }
        }
        query.pattern = call.parameter("pattern").filter(|text| !text.is_empty()).map(str::to_owned);
        match (wrong.is_empty(), query == Self::default()) {
            (false, _) => Err(joined(wrong)),
            (true, true) => Ok(None),
            (true, false) => Ok(Some(query)),
        }
    }

    /// What does not fit together.
    pub fn complaint(&self, root: &Path) -> Option<String> {
        let mut wrong: Vec<String> = self.services.iter().filter_map(|name| service(name)).collect();
        let plain = Self { files: self.files.clone(), services: self.services.clone(), ..Self::default() };
        match (self.files.as_slice(), self.services.as_slice()) {
            ([], []) => wrong.push("query: Required value: cannot be empty with options".into()),
            ([_, ..], [_, ..]) => {
                let given =
                    format!("{:?}", format!("[{}], [{}]", self.files.join(" "), self.services.join(" ")));
                wrong.push(format!("query: Invalid value: {given}: cannot specify a file and service"));
            }
            ([_, _, ..], _) => wrong.push(self.files_wrong("cannot specify more than one file")),
            ([_], []) if *self != plain => wrong.push(self.files_wrong("cannot specify file with options")),
            ([file], []) => {
                let path = root.join(file.trim_start_matches('/'));
                if !path.exists() {
                    let why = format!("stat {}: no such file or directory", path.display());
                    wrong.push(self.files_wrong(&why));
                }
            }
            ([], _) => {}
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            wrong.push(format!("untilTime: Invalid value: \"{until}\": must be after `sinceTime`"));
        }
        if let Some(boot) = self.boot.filter(|boot| *boot > 0) {
            wrong.push(format!("boot: Invalid value: {boot}: must be less than 1"));
        }
        (!wrong.is_empty()).then(|| joined(wrong))
    }

    fn files_wrong(&self, why: &str) -> String {
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        format!("query: Invalid value: {}: {why}", quoted_list(&files))
    }
}

/// A service's name is one word of a unit's letters.
fn service(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_@:.-".contains(&byte);
    let good = name.len() <= 256 && name.bytes().all(fits) && !name.starts_with('-');
    (!good).then(|| format!("query: Invalid value: {name:?}: input contains unsupported characters"))
}

/// A list as field errors show it.
fn quoted_list(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(","))
}

/// Several complaints are shown in brackets.
fn joined(mut wrong: Vec<String>) -> String {
    match wrong.len() {
        1 => wrong.remove(0),
        _ => format!("[{}]", wrong.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<LogQuery>, String> {
        let request = http::Request::get(format!("/logs/?{query}")).body(()).unwrap();
        LogQuery::read(&Call::of(request.into_parts().0).unwrap())
    }

    #[test]
    fn a_slash_makes_a_file_of_a_query_and_its_absence_a_service() {
        assert_eq!(read("x=1").unwrap(), None);
        let query = read("query=kubelet&query=/foo.log&tailLines=5").unwrap().unwrap();
        assert_eq!((query.services.len(), query.files.len(), query.tail), (1, 1, Some(5)));
        assert!(query.complaint(Path::new("/")).unwrap().contains("cannot specify a file and service"));
        let options = read("tailLines=5").unwrap().unwrap();
        let complaint = options.complaint(Path::new("/")).unwrap();
        assert_eq!(complaint, "query: Required value: cannot be empty with options");
    }

    #[test]
    fn wrong_values_are_named_together() {
        assert_eq!(read("query=%20").unwrap_err(), "query: Invalid value: [\" \"]: query cannot be empty");
        let both = read("query=kubelet&sinceTime=now&tailLines=x").unwrap_err();
        assert!(both.starts_with('[') && both.contains("sinceTime") && both.contains("tailLines"), "{both}");
        let odd = read("query=a;b").unwrap().unwrap().complaint(Path::new("/")).unwrap();
        assert!(odd.contains("unsupported characters"), "{odd}");
    }
}
