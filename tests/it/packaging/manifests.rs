//! The unit of systemd, the container and the manifests of Kubernetes run commands that there are, with
//! no more rights than they need, and agree with one another.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use stillframe::elapsed::Elapsed;
use stillframe::policy::meant::LeasePlace;

use super::super::support::{Datacenter, project};
use super::{assert_is_command, example, option, texts, yaml};

/// The settings of a unit, `Section.Name` and value, with continued lines joined.
fn settings(unit: &str) -> Vec<(String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in unit.replace("\\\n", " ").lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, value) = line.split_once('=').expect("a setting");
            found.push((format!("{section}.{name}"), value.to_owned()));
        }
    }
    found
}

fn seconds(length: &str) -> i64 {
    Elapsed::parse(&length.replace("min", "m")).unwrap().as_seconds()
}

/// Seconds after the grace: 30 for what is given up, 5 for messages and 1 for a program that takes one, 3 for
/// each kind of what a collector is sent, 10 for the lease, and some for the machine.
const LAST_WORDS: i64 = 30 + 5 + 1 + 3 * 2 + 10 + 5;

#[test]
fn the_unit_runs_watch_shut_in() {
    let settings = settings(&example("systemd/stillframe-watch.service"));
    let all = |name: &str| -> Vec<&str> {
        let name = format!("Service.{name}");
        settings.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.as_str()).collect()
    };
    let one = |name: &str| match all(name)[..] {
        [value] => value,
        ref other => panic!("{name}: {other:?}"),
    };
    let words: Vec<String> = one("ExecStart").split_whitespace().map(str::to_owned).collect();
    assert!(words[0].ends_with("/stillframe"));
    assert_is_command(&words[1..], "ExecStart");
    assert_eq!(one("Type"), "notify");
    assert!(seconds(one("TimeoutStopSec")) >= seconds(option(&words, "--grace")) + LAST_WORDS);
    // The loop turns once a minute where nothing is due.
    assert!(seconds(one("WatchdogSec")) > 60);
    // What is named in %d is handed over.
    let credentials: BTreeSet<&str> =
        all("LoadCredential").iter().map(|value| value.split(':').next().unwrap()).collect();
    let unit = example("systemd/stillframe-watch.service");
    let used: BTreeSet<&str> = unit
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split("%d/").skip(1))
        .map(|rest| rest.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(credentials, used);
    for (name, value) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
    ] {
        assert_eq!(one(name), value, "{name}");
    }
    assert_eq!(all("SystemCallFilter"), ["@system-service", "~@privileged @resources"]);
}

#[test]
fn the_container_runs_watch_as_nobody() {
    let text = example("container/Dockerfile").replace("\\\n", " ");
    let last = text.rsplit_once("\nFROM ").unwrap().1;
    let of = |name: &str| {
        let line = last.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}"))
    };
    assert!(of("USER").split(':').all(|id| id.parse::<u32>().unwrap() > 0));
    let entry = texts(&serde_json::from_str(of("ENTRYPOINT")).unwrap());
    assert!(text.contains(&format!("/out{}", entry[0])), "nothing is built at {}", entry[0]);
    assert_is_command(&texts(&serde_json::from_str(of("CMD")).unwrap()), "CMD");
    // The toolchain is one that the program builds with.
    let minimum = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let minimum = minimum.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
    assert!(text.contains(&format!("FROM rust:{minimum}-")), "not built with {minimum}");
    let version = format!("stillframe:{}", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "it shows another version than {version}");
}

/// Every document below the manifests, by its path.
fn manifests() -> Vec<(String, Value)> {
    let root = project().join("examples/kubernetes");
    let files = stillframe::files::yaml_files(&root).unwrap();
    let relative =
        files.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
    relative
        .filter(|path| !path.starts_with("base/policies"))
        .map(|path| (path.clone(), yaml(&format!("kubernetes/{path}"))))
        .collect()
}

/// Every container in the manifests, with its pod.
fn containers() -> Vec<(String, Value, Value)> {
    let mut found = Vec::new();
    for (path, document) in manifests() {
        let pod = &document["spec"]["template"]["spec"];
        for kind in ["containers", "initContainers"] {
            for container in pod[kind].as_array().into_iter().flatten() {
                found.push((path.clone(), pod.clone(), container.clone()));
            }
        }
    }
    found
}

#[test]
fn manifests_run_watch_with_no_rights() {
    let mut commands = 0;
    for (path, pod, container) in containers() {
        let name = container["name"].as_str().unwrap();
        let is_patch = container.get("image").is_none();
        if !is_patch {
            let security = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], security, "{path}: {name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{path}: {name}");
        }
        if name != "stillframe" {
            continue;
        }
        let words = texts(&container["args"]);
        assert_is_command(&words, &path);
        commands += 1;
        let (_, port) = option(&words, "--listen").split_once(':').unwrap();
        let (base, deployed) = deployment();
        let grace = base["terminationGracePeriodSeconds"].as_i64().unwrap();
        assert!(grace >= seconds(option(&words, "--grace")) + LAST_WORDS, "{path}");
        assert_eq!(deployed["ports"][0]["containerPort"].to_string(), port, "{path}");
        // What is read is mounted.
        for file in ["--policies", "--token-file"] {
            let file = option(&words, file);
            let own = container["volumeMounts"].as_array().unwrap().iter();
            let mut mounts = own.chain(deployed["volumeMounts"].as_array().unwrap());
            let holds = |mount: &Value| file.starts_with(mount["mountPath"].as_str().unwrap());
            assert!(mounts.any(holds), "{path}: {file} is not mounted");
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            let volumes = pod["volumes"].as_array().unwrap();
            let is_there = volumes.iter().any(|volume| volume["name"] == mount["name"]);
            assert!(is_there || mount["$patch"] == "delete", "{path}: {mount}");
        }
    }
    assert_eq!(commands, 2);
}

/// The pod of the base, and the container of stillframe in it.
fn deployment() -> (Value, Value) {
    let document = yaml("kubernetes/base/deployment.yaml");
    let pod = document["spec"]["template"]["spec"].clone();
    let container = pod["containers"][0].clone();
    (pod, container)
}

#[test]
fn manifests_agree_with_one_another() {
    let (pod, container) = deployment();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    // The user of the container is that of the pod.
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert!(example("container/Dockerfile").contains(&format!("USER {user}:{user}")));
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    let probes =
        probes.map(|probe| container[probe]["httpGet"]["path"].as_str().unwrap().to_owned());
    assert_eq!(probes, ["/readyz", "/readyz", "/healthz"]);
    // Everything goes to the port by its name.
    let port = &container["ports"][0];
    let service = yaml("kubernetes/base/service.yaml");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    let network = yaml("kubernetes/base/network-policy.yaml");
    assert_eq!(network["spec"]["ingress"][0]["ports"][0]["port"], port["name"]);
    let monitor = yaml("kubernetes/components/service-monitor/service-monitor.yaml");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
    // The token is the same one for who asks and who answers.
    let volumes = pod["volumes"].as_array().unwrap();
    let secret = volumes.iter().find_map(|volume| volume["secret"]["secretName"].as_str()).unwrap();
    let token = &endpoint["authorization"]["credentials"];
    assert_eq!(token["name"], secret);
    let words = texts(&container["args"]);
    assert!(
        option(&words, "--token-file").ends_with(&format!("/{}", token["key"].as_str().unwrap()))
    );
    // Names that point at something do.
    let kustomization = yaml("kubernetes/base/kustomization.yaml");
    let map = &kustomization["configMapGenerator"][0];
    let named = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).unwrap();
    assert_eq!(map["name"], named);
    assert_eq!(map["options"]["disableNameSuffixHash"], true);
    let claim = volumes.iter().find_map(|v| v["persistentVolumeClaim"]["claimName"].as_str());
    assert_eq!(yaml("kubernetes/base/ledger.yaml")["metadata"]["name"], claim.unwrap());
    assert_eq!(
        yaml("kubernetes/base/service-account.yaml")["metadata"]["name"],
        pod["serviceAccountName"]
    );
    assert_eq!(kustomization["images"][0]["name"], container["image"]);
    assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_lease_is_one_that_its_role_allows() {
    let component = yaml("kubernetes/components/lease/kustomization.yaml");
    let patches = component["patches"].as_array().unwrap();
    let patch = patches.iter().find(|patch| patch["target"]["kind"] == "Deployment").unwrap();
    let patch = patch["patch"].as_str().unwrap();
    let argument = patch.split_once("--lease=").unwrap().1.split('}').next().unwrap().to_owned();
    let (_, container) = deployment();
    let mut words = texts(&container["args"]);
    words.push(format!("--lease={argument}"));
    assert_is_command(&words, "the component of the lease");
    let Ok(LeasePlace::Kubernetes(lease)) = LeasePlace::parse(&argument) else {
        panic!("{argument} is no Lease")
    };
    let role = yaml("kubernetes/components/lease/role.yaml");
    let of = |verb: &str| -> Vec<&Value> {
        let rules = role["rules"].as_array().unwrap().iter();
        rules.filter(|rule| texts(&rule["verbs"]).contains(&verb.to_owned())).collect()
    };
    for verb in ["get", "update"] {
        assert_eq!(of(verb)[0]["resourceNames"], json!([lease.name]), "{verb}");
    }
    // What is to be created has no name yet that a rule could name.
    assert!(of("create")[0].get("resourceNames").is_none());
    let binding = yaml("kubernetes/components/lease/role-binding.yaml");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let account = yaml("kubernetes/base/service-account.yaml");
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(lease.namespace, None, "the namespace is that of the pod");
}

#[test]
fn kustomizations_name_every_file() {
    let root = project().join("examples/kubernetes");
    let mut named = BTreeSet::new();
    for (path, document) in manifests() {
        let Some((directory, "kustomization.yaml")) = path.rsplit_once('/') else {
            let whole = ["apiVersion", "kind"].iter().all(|key| document[key].is_string());
            assert!(whole && document["metadata"]["name"].is_string(), "{path}");
            continue;
        };
        named.insert(path.clone());
        let patches = document["patches"].as_array().into_iter().flatten();
        let maps = document["configMapGenerator"].as_array().into_iter().flatten();
        let files = texts(&json!(document["resources"].as_array().unwrap()))
            .into_iter()
            .chain(patches.filter_map(|patch| patch["path"].as_str().map(str::to_owned)))
            .chain(maps.flat_map(|map| texts(&map["files"])));
        for file in files {
            let target = root.join(directory).join(&file);
            assert!(target.exists(), "{path}: no {file}");
            named.insert(format!("{directory}/{file}"));
        }
    }
    for path in stillframe::files::yaml_files(&root).unwrap() {
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        assert!(named.contains(path), "no kustomization names {path}");
    }
}

#[test]
fn policies_of_the_manifests_are_without_fault() {
    let datacenter = Datacenter::new();
    let policies = "examples/kubernetes/base/policies";
    datacenter.run_to(0, &["--policies", policies, "validate", "--deny", "warnings"]);
}
