//! What libraries do with kinds of their own: kube-rs by its example's pattern, and the official Python client.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kit::clients;
use crate::kit::server::ApiServer;

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
struct FooSpec {
    name: String,
    info: Option<String>,
    #[serde(default)]
    replicas: i32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct FooStatus {
    is_bad: bool,
}

/// What `#[derive(CustomResource)]` makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Foo {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: FooSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<FooStatus>,
}

impl Resource for Foo {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> std::borrow::Cow<'_, str> {
        "Foo".into()
    }
    fn group(_: &()) -> std::borrow::Cow<'_, str> {
        "clux.dev".into()
    }
    fn version(_: &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> std::borrow::Cow<'_, str> {
        "foos".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn foo(name: &str, replicas: i32) -> Foo {
    let spec = FooSpec { name: name.into(), info: None, replicas };
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    Foo { api_version: "clux.dev/v1".into(), kind: "Foo".into(), metadata, spec, status: None }
}

fn definition() -> CustomResourceDefinition {
    let generator = schemars::generate::SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut spec = serde_json::to_value(generator.into_root_schema_for::<FooSpec>()).unwrap();
    for extra in ["$schema", "title"] {
        spec.as_object_mut().unwrap().remove(extra);
    }
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": spec,
        "status": {"type": "object", "nullable": true, "properties": {"is_bad": {"type": "boolean"}}}}});
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.clux.dev"},
        "spec": {"group": "clux.dev", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "shortNames": []},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}}}]},
    }))
    .unwrap()
}

#[test]
fn an_operator_in_rust_defines_applies_watches_and_finalizes() {
    let server = ApiServer::start(&[], &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let within = tokio::time::timeout(Duration::from_secs(90), operate(&server));
        within.await.expect("the operator is done in time");
    });
}

async fn operate(server: &ApiServer) {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("crd_apply_example").force();
    definitions.patch("foos.clux.dev", &apply, &Patch::Apply(&definition())).await.unwrap();
    let established = await_condition(definitions.clone(), "foos.clux.dev", conditions::is_crd_established());
    established.await.unwrap();

    let foos: Api<Foo> = Api::namespaced(client, "default");
    let events = watcher(foos.clone(), watcher::Config::default());
    futures_util::pin_mut!(events);
    let made = foos.patch("baz", &apply, &Patch::Apply(foo("baz", 3))).await.unwrap();
    assert_eq!(made.spec.replicas, 3);
    let seen = loop {
        match events.next().await.unwrap().unwrap() {
            watcher::Event::Apply(found) | watcher::Event::InitApply(found) => break found,
            _ => {}
        }
    };
    assert_eq!(seen.name_any(), "baz");
    let status = json!({"apiVersion": "clux.dev/v1", "kind": "Foo", "status": {"is_bad": true}});
    let bad = foos.patch_status("baz", &apply, &Patch::Apply(status)).await.unwrap();
    assert!(bad.status.unwrap().is_bad && bad.spec.replicas == 3);
    let wrong = foos.create(&Default::default(), &Foo { kind: "Bar".into(), ..foo("qux", 1) }).await;
    assert!(matches!(wrong, Err(kube::Error::Api(status)) if status.code == 400));

    // The finalizer is put on, holds the object back, and goes when the operator has cleaned up.
    let reconcile = |event: Event<Foo>| async move {
        assert!(matches!(event, Event::Apply(_) | Event::Cleanup(_)));
        Ok::<_, std::io::Error>(Action::await_change())
    };
    let now = foos.get("baz").await.unwrap();
    finalizer(&foos, "clux.dev/cleanup", Arc::new(now), reconcile).await.unwrap();
    assert_eq!(foos.get("baz").await.unwrap().finalizers(), ["clux.dev/cleanup"]);
    foos.delete("baz", &DeleteParams::default()).await.unwrap();
    let leaving = foos.get("baz").await.unwrap();
    assert!(leaving.metadata.deletion_timestamp.is_some());
    finalizer(&foos, "clux.dev/cleanup", Arc::new(leaving), reconcile).await.unwrap();
    assert!(foos.list(&ListParams::default()).await.unwrap().items.is_empty());
}

const PYTHON: &str = r#"
import threading
from kubernetes import client, config, watch
config.load_kube_config()
core, custom = client.CoreV1Api(), client.CustomObjectsApi()
body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="py"), data={"a": "1"})
made = core.create_namespaced_config_map("default", body)
assert made.metadata.managed_fields[0].manager.startswith("OpenAPI-Generator"), made.metadata.managed_fields
seen = []
def follow():
    for event in watch.Watch().stream(core.list_namespaced_config_map, "default",
            resource_version=made.metadata.resource_version, timeout_seconds=60):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            return
follower = threading.Thread(target=follow)
follower.start()
made.data["a"] = "2"
assert core.replace_namespaced_config_map("py", "default", made).data == {"a": "2"}
assert core.patch_namespaced_config_map("py", "default", {"data": {"b": "3"}}).data == {"a": "2", "b": "3"}
try:
    core.replace_namespaced_config_map("py", "default", made)
except client.ApiException as error:
    assert (error.status, error.reason) == (409, "Conflict"), error
assert len(core.list_namespaced_config_map("default", limit=1).items) == 1
core.delete_namespaced_config_map("py", "default")
follower.join(60)
assert seen == [("MODIFIED", "py"), ("MODIFIED", "py"), ("DELETED", "py")], seen
spec = client.V1CustomResourceDefinitionSpec(
    group="py.example.com", scope="Cluster",
    names=client.V1CustomResourceDefinitionNames(plural="pets", singular="pet", kind="Pet"),
    versions=[client.V1CustomResourceDefinitionVersion(name="v1", served=True, storage=True,
        schema=client.V1CustomResourceValidation(open_apiv3_schema=client.V1JSONSchemaProps(
            type="object", x_kubernetes_preserve_unknown_fields=True)))])
client.ApiextensionsV1Api().create_custom_resource_definition(client.V1CustomResourceDefinition(
    api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition",
    metadata=client.V1ObjectMeta(name="pets.py.example.com"), spec=spec))
for event in watch.Watch().stream(client.ApiextensionsV1Api().list_custom_resource_definition, timeout_seconds=60):
    conditions = {one.type: one.status for one in (event["object"].status.conditions or [])}
    if conditions.get("Established") == "True":
        break
pet = {"apiVersion": "py.example.com/v1", "kind": "Pet", "metadata": {"name": "rex"}, "legs": 4}
custom.create_cluster_custom_object("py.example.com", "v1", "pets", pet)
assert custom.get_cluster_custom_object("py.example.com", "v1", "pets", "rex")["legs"] == 4
custom.patch_cluster_custom_object("py.example.com", "v1", "pets", "rex", {"legs": 3})
assert custom.list_cluster_custom_object("py.example.com", "v1", "pets")["items"][0]["legs"] == 3
custom.delete_cluster_custom_object("py.example.com", "v1", "pets", "rex")
print("done")
"#;

#[test]
fn the_python_client_writes_watches_and_defines() {
    let server = ApiServer::start(&[], &[]);
    let output = Command::new("/usr/bin/python3")
        .env("PYTHONPATH", clients::python())
        .env("KUBECONFIG", server.kubeconfig())
        .args(["-c", PYTHON])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), "done\n", "{}", text(&output.stderr));
}
