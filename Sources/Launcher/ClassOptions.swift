import ArgumentParser
import LDMModel

/// Options for class-conditional models.
struct ClassOptions: ParsableArguments {
    @Option(
        name: .customLong("class"),
        help: ArgumentHelp(
            """
            Classes of a class-conditional model: names or indices, separated by commas, which the samples take in \
            turn. Default: all classes.
            """, valueName: "name,..."))
    var classes = "all"
    @Option(
        help: ArgumentHelp(
            """
            Scale of classifier-free guidance: 1 for none, larger for samples that are more typical of their class and \
            less diverse. Evaluates the model for two batches.
            """, valueName: "number"))
    var guidanceScale: Double?
    @Option(
        help: ArgumentHelp(
            "Index of the null class, for guidance with a model that disttrain did not train.", valueName: "n"
        ))
    var nullClass: Int?

    func validate() throws {
        if let guidanceScale, !(guidanceScale >= 0 && guidanceScale.isFinite) {
            throw ValidationError("--guidance-scale \(guidanceScale): expected 0 or more")
        }
        guard classes.split(separator: ",", omittingEmptySubsequences: false).allSatisfy({ !$0.isEmpty })
        else { throw ValidationError("--class '\(classes)': expected names or indices separated by commas") }
    }

    var request: ClassRequest {
        ClassRequest(
            names: classes == "all" ? nil : classes.split(separator: ",").map(String.init),
            guidanceScale: guidanceScale ?? 1, nullClass: nullClass)
    }
}
