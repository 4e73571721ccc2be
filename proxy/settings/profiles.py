"""Profiles: instruction, tier, window, passage fields and mapping for each kind of documents.

`TIERS`, `PRIORITIES` and `CHOICES` are the decision matrix: which models for which need.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierModels:
    """The two models of a tier, and when to use it."""

    embedding: str
    rerank: str
    dimensions: int
    """Dimensions of the embedding model; fewer can be requested."""
    when: str


@dataclass(frozen=True, slots=True)
class Profile:
    """The defaults of a route for one kind of documents."""

    name: str
    use: str
    instruction: str
    tier: str
    rank_window_size: int
    passage: tuple[str, ...]
    """Entries of a passage template: what the reranker reads."""
    embedded: tuple[str, ...]
    """The entries of which vectors are made: texts, not facts that change often."""

    @property
    def mapping(self) -> str:
        """The file in `es_mappings` with settings and mappings for these documents."""
        return f"{self.name}.json"


TIERS: dict[str, TierModels] = {
    "fast": TierModels(
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-Reranker-0.6B",
        1024,
        "lowest cost and latency: autocomplete-like traffic, short texts, large windows",
    ),
    "balanced": TierModels(
        "Qwen/Qwen3-Embedding-4B",
        "Qwen/Qwen3-Reranker-4B",
        2560,
        "the default: most shops, help centres and knowledge bases",
    ),
    "precision": TierModels(
        "Qwen/Qwen3-Embedding-8B",
        "Qwen/Qwen3-Reranker-8B",
        4096,
        "one wrong first hit is expensive: law, medicine, research",
    ),
}

AUTO = "auto"
"""The tier that chooses between two rerankers: see `routes.TierSwitch`."""

STAND_IN = "sentence-transformers/all-MiniLM-L6-v2"
"""The model name in every response of the local models, whatever name the request has."""


@dataclass(frozen=True, slots=True)
class Blend:
    """The default weight of the fused order relative to a model's scores, and the reason for it."""

    weight: float
    why: str


BLENDS: dict[str, Blend] = {
    STAND_IN: Blend(
        0.75, "measured on four judged collections: by its scores alone, searches for titles got worse than without it"
    ),
}
_UNMEASURED = Blend(0.0, "not measured: the reranker decides alone")


def blend_of(model: str) -> Blend:
    """Return the row of a reranker model."""
    return BLENDS.get(model, _UNMEASURED)


PRIORITIES: dict[str, str] = {
    "speed-and-cost": "fast",
    "balanced": "balanced",
    "accuracy": "precision",
    "high-volume": "fast",
    "critical": "precision",
}
"""The tier for each priority of the decision matrix."""

PRIORITY_MEANINGS: dict[str, str] = {
    "speed-and-cost": "fast responses and low cost matter more than the best order",
    "balanced": "good order at moderate cost",
    "accuracy": "the best order, for more time and money",
    "high-volume": "over 1000 searches a second",
    "critical": "a wrong first hit causes harm",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to configure a route, and when to use it."""

    name: str
    settings: str
    when: str


CHOICES: tuple[Choice, ...] = (
    Choice(
        "embeddings alone",
        "semantic: {…}, rerank: false",
        "users' words differ from the documents' words; no time for a reranker; very many searches",
    ),
    Choice(
        "add a reranker",
        "semantic: {…} (rerank is on)",
        "the right documents are found but not first; users read few hits; 100 to 300 ms more are acceptable",
    ),
    Choice(
        "a reranker alone",
        "no semantic",
        "the index cannot be changed, or `backfill` has not run yet: a better order of what BM25 finds",
    ),
)

_ROWS = (
    Profile(
        "rag",
        "passages for a language model's answers (RAG)",
        "Given a question, judge whether this passage holds the facts that answer it, stated fully enough to be "
        "quoted and used without reading further; a passage that is only on the same topic is worth little.",
        "balanced",
        50,
        (
            "title",
            "Section: {heading}",
            "chunk",
        ),
        ("title", "chunk"),
    ),
    Profile(
        "e-commerce",
        "products in a shop",
        "Given a shopper's query, judge whether this product is what they mean to buy. Weigh the purchase intent: "
        "kind of product first, then brand, model, size and variant as asked, price against the budget named, "
        "features that match, and good reviews. An accessory, spare part or case for the product is not the "
        "product, and a different variant or brand than the one named is a poor match.",
        "balanced",
        50,
        (
            "title",
            "Brand: {brand}",
            "Category: {category}",
            "Price: {price} {currency}",
            "Rating: {rating}",
            "Reviews: {reviews:100}",
            "Color: {color}",
            "Size: {size}",
            "Attributes: {attributes:150}",
            "description",
        ),
        ("title", "brand", "description"),
    ),
    Profile(
        "knowledge",
        "a company's own documents",
        "Given an employee's question, judge whether this internal document answers it with what holds today: the "
        "policy, procedure or decision itself, in its current version, before announcements, drafts and minutes "
        "that mention it.",
        "balanced",
        50,
        (
            "title",
            "Kind: {kind}",
            "Status: {status}",
            "Updated: {updated_at:date}",
            "body",
        ),
        ("title", "body"),
    ),
    Profile(
        "support",
        "help articles and answered tickets",
        "Given a customer's problem in their own words, judge whether this article solves it directly and easily, "
        "in steps that people who are not technical can follow. Prefer the fix for exactly this problem and "
        "product over general advice, background and technical detail.",
        "fast",
        50,
        (
            "title",
            "Product: {product} {version}",
            "question",
            "answer",
        ),
        ("title", "question", "answer"),
    ),
    Profile(
        "legal",
        "statutes, cases and commentary",
        "Given a legal question, judge the authority of this source on it. Binding precedent and statute of the "
        "jurisdiction in question stand above persuasive decisions, and those above commentary and other "
        "secondary sources; recent decisions stand before older ones on the same point, and law that was "
        "overruled or repealed last.",
        "precision",
        100,
        (
            "title",
            "citation",
            "Kind: {kind}",
            "Court: {court}",
            "Jurisdiction: {jurisdiction}",
            "Binding: {binding}",
            "Status: {status}",
            "Decided: {decided:date}",
            "headnote",
            "text",
        ),
        ("title", "citation", "headnote", "text"),
    ),
    Profile(
        "academic",
        "research papers",
        "Given a research question, judge whether this paper answers it with empirical evidence of its own. Prefer "
        "peer-reviewed and recent work whose method and population fit the question over opinion, older work "
        "that was superseded, and papers that only name the topic.",
        "precision",
        100,
        (
            "title",
            "Venue: {venue}",
            "Peer-reviewed: {peer_reviewed}",
            "Year: {year}",
            "Method: {method}",
            "abstract",
        ),
        ("title", "abstract"),
    ),
    Profile(
        "code",
        "functions, classes and examples",
        "Given what a programmer wants to do, judge whether this code does it: the behaviour asked for, in the "
        "language and with the library named, complete enough to be used. The definition stands before its "
        "callers and tests, and code that only shares names with the query is no match.",
        "balanced",
        50,
        (
            "symbol",
            "Language: {language}",
            "Kind: {kind}",
            "Imports: {imports:50}",
            "{signature:raw}",
            "docstring",
            "{code:raw}",
        ),
        ("symbol", "{signature:raw}", "docstring", "{code:raw}"),
    ),
    Profile(
        "recommendation",
        "things to read, watch or hear next",
        "Given what a person says they like or are in the mood for, judge how well this item fits their taste: "
        "theme, mood, style and audience as described, and not merely the same words or the very item they named.",
        "fast",
        100,
        (
            "title",
            "Kind: {kind}",
            "Genres: {genres}",
            "Moods: {moods}",
            "Audience: {audience}",
            "By: {creators:50}",
            "Tags: {tags:100}",
            "description",
        ),
        ("title", "description", "tags"),
    ),
    Profile(
        "recruitment",
        "candidates for a position, or positions for a candidate",
        "Given a position's requirements, judge by skills and experience alone how well this profile meets them: "
        "every required skill and level first, proven in comparable work, then what is merely wanted. Words in a "
        "list of skills weigh less than work that used them; name, age, sex and origin weigh nothing.",
        "precision",
        100,
        (
            "title",
            "Seniority: {seniority}",
            "Experience: {experience_years} years",
            "Education: {education}",
            "Certifications: {certifications:50}",
            "Languages: {languages}",
            "summary",
            "skills",
        ),
        ("title", "summary", "skills"),
    ),
    Profile(
        "medical",
        "clinical literature and guidance",
        "Given a clinical question, judge whether this document answers it for the same condition, population and "
        "intervention. Prefer current guidelines, systematic reviews and randomised trials over case reports and "
        "opinion, and never take a document on a similar sounding condition or drug for the one asked for.",
        "precision",
        100,
        (
            "title",
            "Condition: {condition}",
            "Intervention: {intervention}",
            "Population: {population}",
            "Study type: {study_type}",
            "Evidence level: {evidence_level}",
            "Published: {published:date}",
            "abstract",
        ),
        ("title", "abstract"),
    ),
    Profile(
        "technical-docs",
        "documentation for people who build",
        "Given a technical question, judge whether this page lets the reader do it: working code examples and "
        "step-by-step guidance first, for the product and version named, then reference that settles the detail; "
        "overviews, release notes and marketing last.",
        "balanced",
        50,
        (
            "title",
            "heading",
            "Product: {product} {version}",
            "Kind: {kind}",
            "body",
            "{code:raw}",
        ),
        ("title", "heading", "body", "{code:raw}"),
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ROWS}
