//! What workloads stand on: networking, storage, node, scheduling, flow control.

use k8s_openapi::api::{
    coordination::v1 as coordination, discovery::v1 as discovery, flowcontrol::v1 as flowcontrol,
    networking::v1 as networking, node::v1 as node, scheduling::v1 as scheduling, storage::v1 as storage,
};

use super::{Resource, STATUS_ONLY, row};

pub fn rows() -> Vec<Resource> {
    let mut rows = network_rows();
    rows.extend(storage_rows());
    rows.extend(vec![
        row::<coordination::Lease>("leases", "lease", "LeaseList").create_on_update(),
        row::<flowcontrol::FlowSchema>("flowschemas", "flowschema", "FlowSchemaList")
            .cluster()
            .with(STATUS_ONLY),
        row::<flowcontrol::PriorityLevelConfiguration>(
            "prioritylevelconfigurations",
            "prioritylevelconfiguration",
            "PriorityLevelConfigurationList",
        )
        .cluster()
        .with(STATUS_ONLY),
        row::<node::RuntimeClass>("runtimeclasses", "runtimeclass", "RuntimeClassList").cluster(),
        row::<scheduling::PriorityClass>("priorityclasses", "priorityclass", "PriorityClassList")
            .short(&["pc"])
            .cluster(),
    ]);
    rows
}

fn network_rows() -> Vec<Resource> {
    vec![
        row::<discovery::EndpointSlice>("endpointslices", "endpointslice", "EndpointSliceList")
            .create_on_update(),
        row::<networking::IngressClass>("ingressclasses", "ingressclass", "IngressClassList").cluster(),
        row::<networking::Ingress>("ingresses", "ingress", "IngressList").short(&["ing"]).with(STATUS_ONLY),
        row::<networking::IPAddress>("ipaddresses", "ipaddress", "IPAddressList").short(&["ip"]).cluster(),
        row::<networking::NetworkPolicy>("networkpolicies", "networkpolicy", "NetworkPolicyList")
            .short(&["netpol"])
            .create_on_update(),
        row::<networking::ServiceCIDR>("servicecidrs", "servicecidr", "ServiceCIDRList")
            .cluster()
            .with(STATUS_ONLY),
    ]
}

fn storage_rows() -> Vec<Resource> {
    vec![
        row::<storage::CSIDriver>("csidrivers", "csidriver", "CSIDriverList").cluster().returns_deleted(),
        row::<storage::CSINode>("csinodes", "csinode", "CSINodeList").cluster().returns_deleted(),
        row::<storage::CSIStorageCapacity>(
            "csistoragecapacities",
            "csistoragecapacity",
            "CSIStorageCapacityList",
        )
        .returns_deleted(),
        row::<storage::StorageClass>("storageclasses", "storageclass", "StorageClassList")
            .short(&["sc"])
            .cluster()
            .returns_deleted(),
        row::<storage::VolumeAttachment>("volumeattachments", "volumeattachment", "VolumeAttachmentList")
            .cluster()
            .returns_deleted()
            .with(STATUS_ONLY),
        row::<storage::VolumeAttributesClass>(
            "volumeattributesclasses",
            "volumeattributesclass",
            "VolumeAttributesClassList",
        )
        .short(&["vac"])
        .cluster()
        .returns_deleted(),
    ]
}
