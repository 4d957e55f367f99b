//! DSP0200's intrinsic methods: their names, their parameters, and what runs them.
//!
//! One that nothing runs is `CIM_ERR_NOT_SUPPORTED`, and so is a name that is not in
//! the table (DSP0200, "Intrinsic methods").

use futures::future::BoxFuture;
use isochron_cim::CimError;

use super::{Answer, Operation, associations, classes, instances, properties, pulled};

type Run = fn(&Operation) -> BoxFuture<'_, Result<Answer, CimError>>;

/// An intrinsic method.
pub(super) struct Intrinsic {
    name: &'static str,
    /// The names of its parameters, with blanks between.
    parameters: &'static str,
    pub run: Option<Run>,
}

impl Intrinsic {
    /// The method of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        INTRINSIC
            .iter()
            .find(|entry| entry.name.eq_ignore_ascii_case(name))
    }

    /// Its parameters' names.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.parameters.split_ascii_whitespace()
    }
}

macro_rules! intrinsic {
    ($($name:literal($($parameters:literal)?) $(=> $run:path)?;)*) => {
        &[$(Intrinsic {
            name: $name,
            parameters: concat!($($parameters)?),
            run: intrinsic!(@run $($run)?),
        }),*]
    };
    (@run) => { None };
    (@run $run:path) => { Some(|operation| Box::pin($run(operation))) };
}

static INTRINSIC: &[Intrinsic] = intrinsic! {
    "GetClass"("ClassName LocalOnly IncludeQualifiers IncludeClassOrigin PropertyList")
        => classes::get_class;
    "EnumerateClasses"("ClassName DeepInheritance LocalOnly IncludeQualifiers IncludeClassOrigin")
        => classes::enumerate_classes;
    "EnumerateClassNames"("ClassName DeepInheritance") => classes::enumerate_class_names;
    "CreateClass"("NewClass") => classes::create_class;
    "ModifyClass"("ModifiedClass") => classes::modify_class;
    "DeleteClass"("ClassName") => classes::delete_class;
    "GetQualifier"("QualifierName") => classes::get_qualifier;
    "EnumerateQualifiers"() => classes::enumerate_qualifiers;
    "SetQualifier"("QualifierDeclaration") => classes::set_qualifier;
    "DeleteQualifier"("QualifierName") => classes::delete_qualifier;

    "GetInstance"("InstanceName LocalOnly IncludeQualifiers IncludeClassOrigin PropertyList")
        => instances::get_instance;
    "EnumerateInstances"("ClassName LocalOnly DeepInheritance IncludeQualifiers IncludeClassOrigin
        PropertyList") => instances::enumerate_instances;
    "EnumerateInstanceNames"("ClassName") => instances::enumerate_instance_names;
    "CreateInstance"("NewInstance") => instances::create_instance;
    "ModifyInstance"("ModifiedInstance IncludeQualifiers PropertyList")
        => instances::modify_instance;
    "DeleteInstance"("InstanceName") => instances::delete_instance;
    "GetProperty"("InstanceName PropertyName") => properties::get_property;
    "SetProperty"("InstanceName PropertyName NewValue") => properties::set_property;

    "Associators"("ObjectName AssocClass ResultClass Role ResultRole IncludeQualifiers
        IncludeClassOrigin PropertyList") => associations::associators;
    "AssociatorNames"("ObjectName AssocClass ResultClass Role ResultRole")
        => associations::associator_names;
    "References"("ObjectName ResultClass Role IncludeQualifiers IncludeClassOrigin PropertyList")
        => associations::references;
    "ReferenceNames"("ObjectName ResultClass Role") => associations::reference_names;

    "ExecQuery"("QueryLanguage Query") => pulled::exec_query;

    "OpenEnumerateInstances"("ClassName LocalOnly DeepInheritance IncludeQualifiers
        IncludeClassOrigin PropertyList FilterQueryLanguage FilterQuery OperationTimeout
        ContinueOnError MaxObjectCount") => pulled::open_instances;
    "OpenEnumerateInstancePaths"("ClassName FilterQueryLanguage FilterQuery OperationTimeout
        ContinueOnError MaxObjectCount") => pulled::open_instance_paths;
    "OpenAssociatorInstances"("InstanceName AssocClass ResultClass Role ResultRole
        IncludeQualifiers IncludeClassOrigin PropertyList FilterQueryLanguage FilterQuery
        OperationTimeout ContinueOnError MaxObjectCount") => pulled::open_associators;
    "OpenAssociatorInstancePaths"("InstanceName AssocClass ResultClass Role ResultRole
        FilterQueryLanguage FilterQuery OperationTimeout ContinueOnError MaxObjectCount")
        => pulled::open_associator_paths;
    "OpenReferenceInstances"("InstanceName ResultClass Role IncludeQualifiers
        IncludeClassOrigin PropertyList FilterQueryLanguage FilterQuery OperationTimeout
        ContinueOnError MaxObjectCount") => pulled::open_references;
    "OpenReferenceInstancePaths"("InstanceName ResultClass Role FilterQueryLanguage FilterQuery
        OperationTimeout ContinueOnError MaxObjectCount") => pulled::open_reference_paths;
    "OpenQueryInstances"("FilterQueryLanguage FilterQuery ReturnQueryResultClass
        OperationTimeout ContinueOnError MaxObjectCount") => pulled::open_query;
    "PullInstancesWithPath"("EnumerationContext MaxObjectCount")
        => pulled::pull_instances_with_path;
    "PullInstancePaths"("EnumerationContext MaxObjectCount") => pulled::pull_instance_paths;
    "PullInstances"("EnumerationContext MaxObjectCount") => pulled::pull_instances;
    "CloseEnumeration"("EnumerationContext") => pulled::close;
    // How many are left is what a stream does not know.
    "EnumerationCount"();
};
