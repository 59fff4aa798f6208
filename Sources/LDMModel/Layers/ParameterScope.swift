import TensorCore

/// A prefix in the tree of parameter names: parameters that a layer declares in the scope
/// `down_blocks.0.resnets.0` get that prefix.
///
/// Layers must declare parameters in the order of the forward pass. The flat store depends on it: gradients
/// then become ready from the end of the store to its start.
package struct ParameterScope {
    package let store: ParameterStore
    /// Dotted path with a trailing dot, or empty at the root.
    private let prefix: String

    /// The root scope of a model.
    package init(_ store: ParameterStore) {
        self.init(store, prefix: "")
    }

    private init(_ store: ParameterStore, prefix: String) {
        self.store = store
        self.prefix = prefix
    }

    /// The scope of a child module.
    package subscript(name: String) -> ParameterScope {
        ParameterScope(store, prefix: "\(prefix)\(name).")
    }

    /// The scope of an element of a list of modules.
    package subscript(name: String, index: Int) -> ParameterScope { self["\(name).\(index)"] }

    func declare(_ name: String, _ shape: [Int], _ initializer: Initializer) -> Parameter {
        store.declare(prefix + name, shape, initializer)
    }
}
