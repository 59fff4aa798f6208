import TensorCore

/// A place in the tree of parameter names: what a layer declares under `down_blocks.0.resnets.0` gets that prefix.
///
/// Layers declare in the order in which the forward pass uses them, because the flat store counts on it:
/// gradients then become ready from the end of the store to its start.
package struct ParameterScope {
    package let store: ParameterStore
    /// Dotted path with a trailing dot, or empty at the root.
    private let prefix: String

    /// The root of a model's names.
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
