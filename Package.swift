// swift-tools-version: 6.2
import PackageDescription

let swiftSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    // The compiler names the conformances that a generic type needs. Otherwise the runtime looks for them by name when the
    // type is first used, among some thousand, which costs each run 0.5 ms.
    .unsafeFlags(
        ["-Xfrontend", "-disable-concrete-type-metadata-mangled-name-accessors"], .when(configuration: .release)),
]

let cSettings: [CSetting] = [
    // CPU_SET, sched_getcpu, setns, unshare, setresuid, ppoll and strerrorname_np are GNU extensions.
    .define("_GNU_SOURCE"),
    .enableWarning("all"),
    .enableWarning("extra"),
    .treatAllWarnings(as: .error),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

let package = Package(
    name: "sockalive",
    products: [
        .executable(name: "sockalive", targets: ["sockalive"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-system.git", from: "1.8.0"),
    ],
    targets: [
        .target(name: "CSockalive", cSettings: cSettings),
        .target(
            name: "SockaliveCore",
            dependencies: ["CSockalive", systemPackage],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "SockaliveDemo",
            dependencies: ["SockaliveCore", systemPackage],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "sockalive",
            dependencies: ["SockaliveCore", "SockaliveDemo", argumentParser, systemPackage],
            swiftSettings: swiftSettings,
            // One copy of functions whose code is the same: the static program is 0.3 MB smaller.
            linkerSettings: [
                .unsafeFlags(["-use-ld=lld", "-Xlinker", "--icf=all", "-Xlinker", "-O2", "-Xlinker", "--gc-sections"])
            ]
        ),
        .testTarget(
            name: "SockaliveCoreTests",
            dependencies: ["SockaliveCore", systemPackage],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "SockaliveTests",
            dependencies: ["sockalive", "SockaliveCore", "SockaliveDemo", argumentParser, systemPackage],
            swiftSettings: swiftSettings
        ),
    ]
)
