//! Which program a container runs, with which environment. Pure.

use super::protocol::{Refusal, RefusalKind};
use super::spec::ContainerSpec;
use crate::node::image::ImageConfig;

/// The container's argv by Kubernetes' rules: `command` replaces the image's entrypoint *and* its command,
/// `args` alone replaces only its command.
pub fn argv(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, Refusal> {
    let argv = match (spec.command.is_empty(), spec.args.is_empty()) {
        (false, _) => [&spec.command[..], &spec.args].concat(),
        (true, false) => [&image.entrypoint[..], &spec.args].concat(),
        (true, true) => [&image.entrypoint[..], &image.cmd].concat(),
    };
    if argv.is_empty() {
        let message = "failed to generate container spec: failed to generate spec: no command specified";
        return Err(Refusal::new(RefusalKind::Create, message));
    }
    Ok(argv)
}

/// The container's environment: the image's, the runtime's, then the pod's; of a name the last value counts.
pub fn environment(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<(String, String)> {
    let path = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all = vec![own(path.0, path.1)];
    all.extend(image.env.iter().cloned());
    all.push(own("HOSTNAME", hostname));
    all.extend(spec.tty.then(|| own("TERM", "xterm")));
    all.extend(spec.env.iter().cloned());
    let mut environment: Vec<(String, String)> = Vec::with_capacity(all.len());
    for (name, value) in all {
        set(&mut environment, &name, &value);
    }
    environment
}

/// The value of a name in an environment.
pub fn value<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Gives a name another value, or its first.
pub fn set(environment: &mut Vec<(String, String)>, name: &str, value: &str) {
    match environment.iter_mut().find(|(known, _)| known == name) {
        Some(known) => known.1 = value.to_owned(),
        None => environment.push((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::node::shim::spec::{Limits, Security};

    /// A container that asks for nothing.
    pub fn container(name: &str, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            name: name.into(),
            attempt: 0,
            image: "minilab/toolbox".into(),
            command: command.iter().map(|word| word.to_string()).collect(),
            args: vec![],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            tty: false,
            stdin: false,
            stdin_once: false,
            log_path: format!("{name}/0.log").into(),
            security: Security::default(),
            limits: Limits::default(),
            oom_score: 1000,
            target: None,
        }
    }

    #[test]
    fn command_and_args_meet_entrypoint_and_cmd_by_kubernetes_rules() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let image =
            ImageConfig { entrypoint: words("entry -e"), cmd: words("default"), ..Default::default() };
        for (command, args, expected) in [
            ("", "", "entry -e default"),
            ("", "a b", "entry -e a b"),
            ("own", "", "own"),
            ("own", "a", "own a"),
        ] {
            let spec = ContainerSpec { command: words(command), args: words(args), ..container("c", &[]) };
            assert_eq!(argv(&spec, &image).unwrap(), words(expected));
        }
        assert!(argv(&container("c", &[]), &ImageConfig::default()).is_err());
    }

    #[test]
    fn the_pods_environment_wins_over_the_images() {
        let image = ImageConfig { env: vec![("A".into(), "1".into())], ..Default::default() };
        let mut spec = container("c", &[]);
        spec.env = vec![("A".into(), "2".into()), ("B".into(), "x".into()), ("B".into(), "y".into())];
        let environment = environment(&spec, &image, "web");
        assert_eq!(value(&environment, "A"), Some("2"));
        assert_eq!(value(&environment, "B"), Some("y"));
        assert_eq!(value(&environment, "HOSTNAME"), Some("web"));
    }
}
