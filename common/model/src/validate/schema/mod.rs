//! The shape of every kind, as tables: field names, Go's rules for writing a field out, and the constraints of
//! Calico's CRDs that one field can be checked against on its own.
//!
//! What needs several fields at once is in `rules`. Facts: the Go structs under `api/pkg/apis/projectcalico/v3`
//! and `libcalico-go/lib/apis/internalapi`, and the CRDs generated from them (Calico v3.33).

mod bgp;
mod cluster;
mod endpoint;
mod felix;
mod ippool;
mod policy;

/// What a JSON value must be, in terms of the Go type that Calico decodes it into.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// `string` and the named string types.
    Text,
    /// `bool`.
    Bool,
    /// An integer type with its bounds, and the Go name of the type for messages.
    Int(i64, i64, &'static str),
    /// `float64`.
    Float,
    /// `numorstring.ASNumber`: a number, or text `"64512"` or `"1.10"`; written as a number.
    AsNumber,
    /// `numorstring.Port`: a number, `"min:max"` or a name.
    Port,
    /// `numorstring.Protocol`: a number 0..255 or a name.
    Protocol,
    /// `intstr.IntOrString`.
    IntOrText,
    /// `metav1.Duration`: Go duration text, rewritten canonically (`15m` becomes `15m0s`).
    Duration,
    /// `metav1.Time`: RFC 3339 text or null.
    Time,
    /// `map[string]string`.
    TextMap,
    /// A slice.
    List(&'static Shape),
    /// A struct.
    Record(&'static [Field]),
    /// Any JSON.
    Any,
}

/// When a field is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// `omitempty` on a value: dropped when zero (`""`, 0, false, empty list, map or record).
    Filled,
    /// `omitempty` on a pointer: kept whenever it is given and not null.
    Given,
    /// No `omitempty`: written even when absent from the input, with its zero value.
    Always,
}

/// A constraint on one value.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// No constraint.
    None,
    /// The value must be there and not zero.
    Required,
    /// One of these words, exactly.
    OneOf(&'static [&'static str]),
    /// One of these words, in any case, or empty.
    Word(&'static [&'static str]),
    /// An integer within these bounds.
    Range(i64, i64),
    /// Text of at most this many bytes.
    MaxLength(usize),
    /// A list whose length is within these bounds.
    Items(usize, usize),
    /// Text (not empty) for which the test holds; the reason says what is expected.
    Test(fn(&str) -> bool, &'static str),
    /// Every member of the list is text for which the test holds.
    Each(fn(&str) -> bool, &'static str),
    /// Every member of the list is one of these words.
    EachOneOf(&'static [&'static str]),
}

/// The value a missing field gets before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// None.
    None,
    /// Text.
    Text(&'static str),
    /// A number.
    Int(i64),
}

/// One field of a record.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The JSON name.
    pub name: &'static str,
    /// The type.
    pub shape: Shape,
    /// When it is written.
    pub keep: Keep,
    /// Constraints, the unused ones [`Rule::None`].
    pub rules: [Rule; 3],
    /// Filled in on create and update.
    pub default: Default,
}

impl Field {
    const fn new(name: &'static str, shape: Shape, keep: Keep) -> Self {
        Self { name, shape, keep, rules: [Rule::None; 3], default: Default::None }
    }

    /// The same field, as a pointer in Go: kept whenever given.
    #[must_use]
    pub const fn given(mut self) -> Self {
        self.keep = Keep::Given;
        self
    }

    /// The same field without `omitempty`.
    #[must_use]
    pub const fn always(mut self) -> Self {
        self.keep = Keep::Always;
        self
    }

    /// Adds a constraint.
    #[must_use]
    pub const fn rule(mut self, rule: Rule) -> Self {
        let mut i = 0;
        while i < self.rules.len() {
            if matches!(self.rules[i], Rule::None) {
                self.rules[i] = rule;
                return self;
            }
            i += 1;
        }
        panic!("a field has at most three rules")
    }

    /// Adds [`Rule::OneOf`].
    #[must_use]
    pub const fn one_of(self, words: &'static [&'static str]) -> Self {
        self.rule(Rule::OneOf(words))
    }

    /// Adds [`Rule::Word`].
    #[must_use]
    pub const fn word(self, words: &'static [&'static str]) -> Self {
        self.rule(Rule::Word(words))
    }

    /// Adds [`Rule::Test`].
    #[must_use]
    pub const fn test(self, test: fn(&str) -> bool, expected: &'static str) -> Self {
        self.rule(Rule::Test(test, expected))
    }

    /// Adds [`Rule::Each`].
    #[must_use]
    pub const fn each(self, test: fn(&str) -> bool, expected: &'static str) -> Self {
        self.rule(Rule::Each(test, expected))
    }

    /// Adds [`Rule::Required`].
    #[must_use]
    pub const fn required(self) -> Self {
        self.rule(Rule::Required)
    }

    /// Sets the default.
    #[must_use]
    pub const fn default_text(mut self, text: &'static str) -> Self {
        self.default = Default::Text(text);
        self
    }

    /// Sets the default.
    #[must_use]
    pub const fn default_int(mut self, number: i64) -> Self {
        self.default = Default::Int(number);
        self
    }
}

/// `string`, omitempty.
pub const fn text(name: &'static str) -> Field {
    Field::new(name, Shape::Text, Keep::Filled)
}
/// `bool`, omitempty.
pub const fn flag(name: &'static str) -> Field {
    Field::new(name, Shape::Bool, Keep::Filled)
}
/// `int` (64 bits), omitempty.
pub const fn int(name: &'static str) -> Field {
    Field::new(name, Shape::Int(i64::MIN, i64::MAX, "int"), Keep::Filled)
}
/// `int32`, omitempty.
pub const fn int32(name: &'static str) -> Field {
    Field::new(name, Shape::Int(i32::MIN as i64, i32::MAX as i64, "int32"), Keep::Filled)
}
/// `uint32`, omitempty.
pub const fn uint32(name: &'static str) -> Field {
    Field::new(name, Shape::Int(0, u32::MAX as i64, "uint32"), Keep::Filled)
}
/// `uint16`, omitempty.
pub const fn uint16(name: &'static str) -> Field {
    Field::new(name, Shape::Int(0, u16::MAX as i64, "uint16"), Keep::Filled)
}
/// `uint8`, omitempty.
pub const fn uint8(name: &'static str) -> Field {
    Field::new(name, Shape::Int(0, u8::MAX as i64, "uint8"), Keep::Filled)
}
/// `*metav1.Duration`, omitempty.
pub const fn duration(name: &'static str) -> Field {
    Field::new(name, Shape::Duration, Keep::Given)
}
/// `[]string`, omitempty.
pub const fn texts(name: &'static str) -> Field {
    Field::new(name, Shape::List(&Shape::Text), Keep::Filled)
}
/// `map[string]string`, omitempty.
pub const fn text_map(name: &'static str) -> Field {
    Field::new(name, Shape::TextMap, Keep::Filled)
}
/// A slice, omitempty.
pub const fn list(name: &'static str, of: &'static Shape) -> Field {
    Field::new(name, Shape::List(of), Keep::Filled)
}
/// A pointer to a struct, omitempty.
pub const fn record(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Shape::Record(fields), Keep::Given)
}
/// A field of any other shape, omitempty on a value.
pub const fn field(name: &'static str, shape: Shape) -> Field {
    Field::new(name, shape, Keep::Filled)
}

/// `metadata`, as Kubernetes' ObjectMeta.
pub const METADATA: &[Field] = &[
    text("name"),
    text("generateName"),
    text("namespace"),
    text("selfLink"),
    text("uid"),
    text("resourceVersion"),
    int("generation"),
    field("creationTimestamp", Shape::Time),
    field("deletionTimestamp", Shape::Time),
    int("deletionGracePeriodSeconds").given(),
    text_map("labels"),
    text_map("annotations"),
    list("ownerReferences", &Shape::Any),
    texts("finalizers"),
    list("managedFields", &Shape::Any),
];

/// Conditions of a status.
const CONDITIONS: &Shape = &Shape::Record(&[
    text("type").always(),
    text("status").always(),
    int("observedGeneration"),
    field("lastTransitionTime", Shape::Time).always(),
    text("reason").always(),
    text("message").always(),
]);

/// The fields of an object of this kind (`IPPool`, …): `kind`, `apiVersion`, `metadata`, `spec` and perhaps `status`.
/// None for a kind that has no table.
pub fn fields_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Node" => cluster::NODE,
        "ClusterInformation" => cluster::CLUSTER_INFORMATION,
        "CalicoNodeStatus" => cluster::NODE_STATUS,
        "KubeControllersConfiguration" => cluster::KUBE_CONTROLLERS,
        "WorkloadEndpoint" => endpoint::WORKLOAD_ENDPOINT,
        "HostEndpoint" => endpoint::HOST_ENDPOINT,
        "Profile" => endpoint::PROFILE,
        "IPPool" => ippool::IP_POOL,
        "IPReservation" => ippool::IP_RESERVATION,
        "IPAMConfiguration" => ippool::IPAM_CONFIGURATION,
        "BlockAffinity" => ippool::BLOCK_AFFINITY,
        "BGPPeer" => bgp::BGP_PEER,
        "BGPConfiguration" => bgp::BGP_CONFIGURATION,
        "BGPFilter" => bgp::BGP_FILTER,
        "FelixConfiguration" => felix::FELIX_CONFIGURATION,
        "GlobalNetworkPolicy" => policy::GLOBAL_NETWORK_POLICY,
        "NetworkPolicy" => policy::NETWORK_POLICY,
        "StagedGlobalNetworkPolicy" => policy::STAGED_GLOBAL_NETWORK_POLICY,
        "StagedNetworkPolicy" => policy::STAGED_NETWORK_POLICY,
        "StagedKubernetesNetworkPolicy" => policy::STAGED_KUBERNETES_NETWORK_POLICY,
        "NetworkSet" | "GlobalNetworkSet" => policy::NETWORK_SET,
        "Tier" => policy::TIER,
        _ => return None,
    })
}

/// The top level of an object whose spec has these fields.
macro_rules! object {
    ($spec:expr) => {
        &[
            $crate::validate::schema::text("kind"),
            $crate::validate::schema::text("apiVersion"),
            $crate::validate::schema::field(
                "metadata",
                $crate::validate::schema::Shape::Record($crate::validate::schema::METADATA),
            )
            .always(),
            $crate::validate::schema::field("spec", $crate::validate::schema::Shape::Record($spec)).always(),
        ]
    };
    ($spec:expr, $status:expr) => {
        &[
            $crate::validate::schema::text("kind"),
            $crate::validate::schema::text("apiVersion"),
            $crate::validate::schema::field(
                "metadata",
                $crate::validate::schema::Shape::Record($crate::validate::schema::METADATA),
            )
            .always(),
            $crate::validate::schema::field("spec", $crate::validate::schema::Shape::Record($spec)).always(),
            $status,
        ]
    };
}
use object;
